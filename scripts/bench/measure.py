"""Ways to measure other programs: time to the first request, wall and processor time, peak memory.

Nothing here knows which program is measured. Times are in seconds, memory in bytes.
"""

import contextlib
import os
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path

# What the first-request listener answers: one streamed text, then the end. Enough for any client to stop.
_EVENT = (
    'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"scripted","choices":'
    '[{"index":0,"delta":{"role":"assistant","content":"done"},"finish_reason":null}]}\n\n'
    'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"scripted","choices":'
    '[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,'
    '"total_tokens":10}}\n\ndata: [DONE]\n\n'
)


class Failed(Exception):
    """A measured program did not do what it was asked."""


class Listener:
    """Accepts connections and notes when the first byte of the first POST arrives, and how long its body is."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.arrived = None
        self.body = b""
        self._seen = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        """Forgets what was seen."""
        self.arrived, self.body = None, b""
        self._seen.clear()

    def wait(self, seconds):
        """Whether a request arrived in time."""
        return self._seen.wait(seconds)

    def _accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        # A client that is ended resets its connection.
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                now = time.monotonic()
                length = 0
                while header := stream.readline().strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                body = stream.read(length)
                if not line.startswith(b"POST"):
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                if self.arrived is None:
                    self.arrived, self.body = now, body
                    self._seen.set()
                answer = _EVENT.encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(answer)}\r\n\r\n"
                connection.sendall(head.encode() + answer)


def first_request(listener, start, rounds, log):
    """Median time from starting a program to its first request, and the bytes of that request's body.

    `start(url)` returns the argument list and keyword arguments for Popen. The first round warms caches up.
    """
    times, size = [], 0
    for number in range(rounds + 1):
        listener.reset()
        command, options = start(listener.url)
        with open(log, "wb") as output:
            before = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        arrived = _arrives(listener, process)
        # What comes after the first request is not measured; a program that wants to go on is ended.
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if not arrived:
            raise Failed(f"{command[0]} sent no request:\n{Path(log).read_text(errors='replace')[-2000:]}")
        size = len(listener.body)
        if number:
            times.append(listener.arrived - before)
    return statistics.median(times), size


def _arrives(listener, process):
    """Waits for the first request, as long as the program lives and a minute at most."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if listener.wait(0.5):
            return True
        if process.poll() is not None:
            return listener.wait(0.1)
    return False


def run(command, options, log):
    """Runs a program to its end; returns wall time, processor time (its waited-for children included).

    What it prints goes to `log`.
    """
    with open(log, "wb") as output:
        before = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = Path(log).read_text(errors="replace")[-2000:]
        raise Failed(f"{' '.join(command[:3])} … ended with {process.returncode}:\n{tail}")
    return wall, usage.ru_utime + usage.ru_stime


def per_step(shorts, longs, steps):
    """Wall and processor time of one step: the best long run less the best short run, by steps.

    `shorts` and `longs` are what `run` returned for the program without and with the steps.
    """
    best = lambda runs, index: min(run[index] for run in runs)  # noqa: E731
    return tuple((best(longs, index) - best(shorts, index)) / steps for index in (0, 1))


def peak_memory(command, options, log):
    """Highest resident memory of a program itself, and of it and its processes together.

    Read every few milliseconds from the kernel's high-water marks, so only the last moments can be missed. Pages that
    processes share are counted for each of them.
    """
    own, family = 0, 0
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        while process.poll() is None:
            marks = [_high_water(pid) for pid in _family(process.pid)]
            own, family = max(own, marks[0]), max(family, sum(marks))
            time.sleep(0.003)
    if process.returncode != 0:
        raise Failed(f"{' '.join(command[:3])} … ended with {process.returncode}, see {log}")
    return own, family


def _family(pid):
    """A process and its long-lived descendants."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    except OSError:
        pass
    return found


def _high_water(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def fork_exec(command, times):
    """Wall and processor time of starting a program and waiting for it, nothing else."""
    def once():
        pid = os.posix_spawn(command[0], command, {"PATH": "/usr/bin:/bin"})
        _, status, usage = os.wait4(pid, 0)
        if status != 0:
            raise Failed(f"{command[0]} ended with {status}")
        return usage.ru_utime + usage.ru_stime

    for _ in range(20):
        once()
    own = time.process_time()
    wall = time.monotonic()
    children = sum(once() for _ in range(times))
    return (time.monotonic() - wall) / times, (children + time.process_time() - own) / times
