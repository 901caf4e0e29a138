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

exec python3 scripts/bench/report.py --forge "$target/release/forge" \
    --server "$target/release/forge-model-server" --peer "$bench/peer/bin/mini" --folder "$bench" "$@"
