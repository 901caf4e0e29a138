#!/usr/bin/env python3
"""A conversation of 200 turns with the router of `forge chat` against a real llama.cpp server.

    chat_model.py FORGE URL

Every turn must be answered or told by one of the router's own sentences, "do you remember" must find the first turn in its
prompt, late turns as well as early ones, and the program's memory must not grow with the turns. Runs in an empty folder of
its own. The last line says how many checks passed.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

TURNS = 200
ASKED = {9: "Do you remember which colour I like?", 199: "Do you still remember which colour I like?"}
SECRET = "turquoise"
# Resident memory may differ between two moments for many reasons; a leak of a request per turn would be far more.
MOST_GROWTH_KB = 12_000


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise SystemExit("chat_model: the program says nothing of its memory")


def question(turn: int) -> str:
    if turn == 0:
        return f"My favourite colour is {SECRET}."
    return ASKED.get(turn, f"Say the number {turn}.")


def main() -> None:
    forge, url = sys.argv[1:3]
    with tempfile.TemporaryDirectory(prefix="forge-chat-") as folder:
        work = Path(folder)
        for name in ("home", "repository"):
            (work / name).mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work / "home"),
            "FORGE_ROUTER_DEBUG": "true",
            "FORGE_MODEL_MAX_TOKENS": "40",
        }
        command = [forge, "chat", "--executor", "router", "--provider", "llama_cpp", "--base-url", url, "--json"]
        talk = subprocess.Popen(
            command, cwd=work / "repository", env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        prompts: list[str] = []

        def listen() -> None:
            prompts.extend(line for line in talk.stderr if line.startswith("router.prompt "))

        listener = threading.Thread(target=listen)
        listener.start()
        answered, early = 0, 0
        for turn in range(TURNS):
            talk.stdin.write(question(turn) + "\n")
            talk.stdin.flush()
            line = talk.stdout.readline()
            if not line:
                sys.exit(f"chat_model: the conversation ended at turn {turn + 1}")
            answer = json.loads(line)
            answered += answer["ok"]
            if not answer["output"]:
                sys.exit(f"chat_model: turn {turn + 1} has no output: {answer}")
            if turn == TURNS // 4:
                early = resident_kb(talk.pid)
        late = resident_kb(talk.pid)
        talk.stdin.close()
        talk.wait(timeout=60)
        listener.join()
        memory = json.loads((work / "repository/.forge/memory/memory.json").read_text())

    if answered < TURNS * 9 // 10:
        sys.exit(f"chat_model: only {answered} of {TURNS} turns were answered")
    if len(memory["history"]) != 2 * answered:
        sys.exit(f"chat_model: {len(memory['history'])} messages are remembered of {answered} answered turns")
    for turn, asked in ASKED.items():
        prompt = next((prompt for prompt in prompts if asked in prompt), "")
        if SECRET not in prompt:
            sys.exit(f"chat_model: turn {turn + 1} asked for the first turn and it is not in its prompt: {prompt[:500]}")
    growth = late - early
    if growth > MOST_GROWTH_KB:
        sys.exit(f"chat_model: {growth} kB more after {TURNS} turns than after {TURNS // 4}")
    print(f"chat_model: {answered} of {TURNS} turns answered; {early} kB after {TURNS // 4} turns, {late} kB after {TURNS}")
    print("4 passed, 0 failed")


if __name__ == "__main__":
    main()
