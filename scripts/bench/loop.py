#!/usr/bin/env python3
"""A minimal agent loop: ask the model, run the commands it wants, repeat. No sandbox, no journal, no limits.

It exists to be measured against: what a step costs when nothing is kept and nothing is isolated. It speaks the
OpenAI chat format with streaming over one connection, on the standard library alone.

    loop.py http://127.0.0.1:PORT "TASK"
"""

import http.client
import json
import subprocess
import sys
from urllib.parse import urlsplit

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "run_shell",
            "description": "Run a shell command and return its output.",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
            },
        },
    }
]


class Model:
    """One kept connection to a server with an OpenAI-compatible chat endpoint."""

    def __init__(self, base):
        parts = urlsplit(base)
        self.path = parts.path.rstrip("/") + "/chat/completions"
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port)

    def reply(self, messages):
        """Sends the conversation; returns the assistant's message put together from the stream."""
        body = json.dumps({"model": "scripted", "messages": messages, "tools": TOOLS, "stream": True})
        headers = {"Content-Type": "application/json", "Authorization": "Bearer bench"}
        self.connection.request("POST", self.path, body, headers)
        response = self.connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"loop: the server answered {response.status}: {response.read(500)!r}")
        text, calls = "", {}
        for line in response:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            choices = json.loads(line[6:]).get("choices")
            delta = choices[0]["delta"] if choices else {}
            text += delta.get("content") or ""
            for piece in delta.get("tool_calls") or []:
                call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.get("id") or ""
                call["name"] += piece["function"].get("name") or ""
                call["arguments"] += piece["function"].get("arguments") or ""
        message = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for call in calls.values()
            ]
        return message


def run(command):
    """Runs one command; returns what the model is told of it."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    return f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


def main():
    base, task = sys.argv[1:3]
    model = Model(base)
    messages = [{"role": "system", "content": "You fix code."}, {"role": "user", "content": task}]
    while True:
        message = model.reply(messages)
        messages.append(message)
        if not message.get("tool_calls"):
            print(message["content"])
            return
        for call in message["tool_calls"]:
            output = run(json.loads(call["function"]["arguments"])["command"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})


if __name__ == "__main__":
    main()
