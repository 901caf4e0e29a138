#!/usr/bin/env bash
# Builds what is measured and what it is measured against, then prints the report. Nothing leaves this machine's
# loopback once everything is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

scripts/setup.sh demo
target="${CARGO_TARGET_DIR:-$PWD/target}"
bench="$target/bench"
mkdir -p "$bench"

cargo build --locked --release --bin forge
cargo build --locked --release --package forge-model-server --bin forge-model-server
cargo build --locked --release --package forge-sandbox --bin forge-sandbox-bench
cargo build --locked --release --package forge-snapshot --example forge-snapshot-bench
cargo build --locked --release --package forge-models --example sse_speed

# install NAME PACKAGE...: peers from PyPI, each in an environment of its own. Versions are pinned.
install() {
    [ ! -e "$bench/$1/ready" ] || return 0
    rm -rf "${bench:?}/$1"
    if python3 -m venv "$bench/$1" && "$bench/$1/bin/pip" install --quiet "${@:2}"; then
        touch "$bench/$1/ready"
    else
        echo "bench: $2 could not be installed; what is measured beside it stays empty" >&2
    fi
}
# `mcp` is imported by its model library without being one of its requirements.
install peer "mini-swe-agent==2.4.6" mcp
install litellm "litellm[proxy]==1.106.2"

# Boxes are measured beside bubblewrap and a container engine, where these can be had.
if ! command -v bwrap >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y --no-install-recommends bubblewrap >/dev/null || echo "bench: no bubblewrap" >&2
fi
image=()
if engines="$(scripts/docker.sh up)"; then
    trap 'scripts/docker.sh down' EXIT
    eval "$engines"
    [ -z "${FORGE_TEST_DOCKER:-}" ] || image=(--image forge-test:latest)
fi

python3 scripts/bench/report.py --forge "$target/release/forge" \
    --server "$target/release/forge-model-server" --peer "$bench/peer/bin/mini" --folder "$bench" "$@"
python3 scripts/bench/boxes.py --boxes "$target/release/forge-sandbox-bench" \
    --snapshots "$target/release/examples/forge-snapshot-bench" --folder "$bench" "${image[@]}"
# Model calls beside curl and the LiteLLM proxy, and streams of providers taken apart.
python3 scripts/bench/calls.py --forge "$target/release/forge" --server "$target/release/forge-model-server" \
    --streams "$target/release/examples/sse_speed" --litellm "$bench/litellm/bin/litellm" --folder "$bench"
