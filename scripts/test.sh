#!/usr/bin/env bash
# All tests, or a part of them, with a line for how long each part took.
#
#   scripts/test.sh all     formatting, lints, every test (make test)
#   scripts/test.sh unit    tests inside the crates' sources
#   scripts/test.sh e2e     tests that drive the built program
#   scripts/test.sh soak    random and kill tests with their full counts
#
# cargo-nextest is used where it is installed, else cargo's own runner.
set -euo pipefail
cd "$(dirname "$0")/.."

what="${1:-all}"
target="${CARGO_TARGET_DIR:-$PWD/target}"
mkdir -p "$target"
log="$target/test-output.log"
times="$target/test-times.log"
: >"$log"
: >"$times"
# Tests that lack a service or a kernel feature write one line here; the end of this script shows them.
export TEST_SKIP_LOG="$target/test-skipped.log"
: >"$TEST_SKIP_LOG"
# What is printed goes through a pipe; on a terminal it keeps its colours.
[ ! -t 1 ] || export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-always}"

part() { # part NAME COMMAND...
    local name="$1" start end result=0
    shift
    echo "== $name: $*"
    start="$(date +%s.%N)"
    "$@" 2>&1 | tee -a "$log" || result=1
    end="$(date +%s.%N)"
    local state=ok
    [ "$result" = 0 ] || state=FAILED
    printf '%-12s %8.1f s  %s\n' "$name" "$(echo "$end $start" | awk '{print $1 - $2}')" "$state" >>"$times"
    return "$result"
}

run_tests() { # run_tests NAME ARGUMENTS-FOR-NEXTEST...
    local name="$1"
    shift
    if cargo nextest --version >/dev/null 2>&1; then
        part "$name" cargo nextest run --locked --no-fail-fast --no-tests=pass "$@"
    else
        part "$name" cargo test --locked --no-fail-fast "$@"
    fi
}

# Container engines, so that the tests of their backends have something to talk to. What is missing is named at the end.
engines() {
    engine_lines="$target/test-engines.env"
    if ! part engines start_engines; then
        echo "container backends: scripts/docker.sh up failed" >>"$TEST_SKIP_LOG"
        [ "${FORGE_DOCKER:-}" != 1 ] || failed=1
    fi
    # shellcheck disable=SC1090  # written just now
    . "$engine_lines"
}

start_engines() {
    scripts/docker.sh up >"$engine_lines"
}

# Sums what the runners said, for one closing line.
totals() {
    sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
        /^ *Summary \[/ {
            for (i = 2; i <= NF; i++) {
                n = $(i - 1) + 0
                if ($i ~ /^passed/) passed += n
                if ($i ~ /^(failed|timed)/) failed += n
                if ($i ~ /^skipped/) skipped += n
            }
        }
        /^test result:/ {
            for (i = 2; i <= NF; i++) {
                n = $(i - 1) + 0
                if ($i ~ /^passed/) passed += n
                if ($i ~ /^failed/) failed += n
                if ($i ~ /^ignored/) skipped += n
            }
        }
        END { printf "tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped }'
}

finish() {
    local result=$?
    # Only what was started above.
    [ -z "${FORGE_TEST_ENGINES_STARTED:-}" ] || scripts/docker.sh down || true
    echo
    if [ -s "$TEST_SKIP_LOG" ]; then
        echo "== not tested on this machine"
        sort -u "$TEST_SKIP_LOG"
        echo
    fi
    echo "== time of each part"
    cat "$times"
    awk '{ sum += $2 } END { printf "%-12s %8.1f s\n", "all", sum }' "$times"
    totals
    exit "$result"
}
trap finish EXIT

case "$what" in
all)
    part setup scripts/setup.sh test
    # What fails here does not keep the rest from being seen.
    failed=0
    engines
    part format cargo fmt --all --check || failed=1
    part clippy cargo clippy --workspace --all-targets --locked -- -D warnings || failed=1
    run_tests tests --workspace || failed=1
    # nextest does not run the examples in documentation.
    if cargo nextest --version >/dev/null 2>&1; then
        part examples cargo test --workspace --doc --locked || failed=1
    fi
    # A link to an item that was renamed or moved breaks here.
    RUSTDOCFLAGS="-A rustdoc::private_intra_doc_links -D warnings" \
        part docs cargo doc --workspace --no-deps --document-private-items --locked || failed=1
    exit "$failed"
    ;;
unit)
    run_tests unit --workspace --lib --bins
    ;;
e2e)
    part setup scripts/setup.sh test
    run_tests e2e --package forge-cli --test '*'
    ;;
soak)
    part setup scripts/setup.sh test
    failed=0
    engines
    # A case that does not fit its test is drawn again; of so many, more may be.
    export FORGE_SOAK=1 PROPTEST_CASES=10000 PROPTEST_MAX_GLOBAL_REJECTS=40000 NEXTEST_PROFILE=soak
    # The same profile of cargo, by each runner's name for it.
    if cargo nextest --version >/dev/null 2>&1; then
        run_tests soak --workspace --cargo-profile soak || failed=1
    else
        run_tests soak --workspace --profile soak || failed=1
    fi
    exit "$failed"
    ;;
*)
    echo "test: unknown part '$what'; use all, unit, e2e or soak" >&2
    exit 2
    ;;
esac
