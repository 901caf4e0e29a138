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
cargo build --locked --release --package forge-testkit --bin forge-model-server
cargo build --locked --release --package forge-sandbox --bin forge-sandbox-bench
cargo build --locked --release --package forge-snapshot --bin forge-snapshot-bench
cargo build --locked --release --package forge-models --example sse_speed

# A peer from PyPI. `mcp` is imported by its model library without being one of its requirements.
peer="mini-swe-agent==2.4.6"
if [ ! -e "$bench/peer/ready" ]; then
    rm -rf "$bench/peer"
    if python3 -m venv "$bench/peer" && "$bench/peer/bin/pip" install --quiet "$peer" mcp; then
        touch "$bench/peer/ready"
    else
        echo "bench: $peer could not be installed; its column stays empty" >&2
    fi
fi

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
    --snapshots "$target/release/forge-snapshot-bench" --folder "$bench" "${image[@]}"
# Streams of providers taken apart, on one core: wanted are 500 MB/s.
"$target/release/examples/sse_speed"
