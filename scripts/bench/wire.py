"""Model calls as plain HTTP: what a program asks, recorded, and the same asked again by curl and by a bare client.

Times are in seconds.
"""

import http.client
import http.server
import json
import os
import socket
import subprocess
import threading
import time
from urllib.parse import urlsplit

from measure import Failed

PATH = "/chat/completions"
END = b"\r\n0\r\n\r\n"


class Recorder:
    """Passes requests on to a model server and keeps the bodies of its model calls."""

    def __init__(self, url):
        target = urlsplit(url)
        self.bodies = []
        bodies = self.bodies

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path.endswith(PATH):
                    bodies.append(body)
                there = http.client.HTTPConnection(target.hostname, target.port)
                there.request(self.command, self.path, body, {"content-type": "application/json"})
                answer = there.getresponse()
                said = answer.read()
                self.send_response(answer.status)
                self.send_header("content-type", answer.getheader("content-type", "text/plain"))
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = pass_on

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{target.path}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Curl:
    """curl: all calls in one process over one connection, or one process for each."""

    def __init__(self, folder, bodies, key):
        self.folder = folder
        folder.mkdir()
        self.key, self.count = key, len(bodies)
        for number, body in enumerate(bodies):
            (self.folder / f"{number}.json").write_bytes(body)

    def _transfer(self, url, number):
        lines = [
            f'url = "{url}{PATH}"',
            f'data-binary = "@{self.folder / str(number)}.json"',
            'header = "content-type: application/json"',
            f'header = "authorization: Bearer {self.key}"',
            f'output = "{self.folder / str(number)}.answer"',
            'write-out = "%{time_total} %{http_code} %{num_connects}\\n"',
            "silent",
            "no-buffer",
        ]
        return "\n".join(lines) + "\n"

    def kept_alive(self, url):
        """Time of each call on one connection, the first one, which connects, left out."""
        config = self.folder / "config"
        config.write_text("next\n".join(self._transfer(url, number) for number in range(self.count)))
        done = subprocess.run(["curl", "--disable", "--config", config], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"curl ended with {done.returncode} at {url}")
        times = []
        for number, line in enumerate(done.stdout.splitlines()):
            taken, status, connects = line.split()
            self._check(number, status)
            if connects == "0":
                times.append(float(taken))
        if len(times) < self.count // 2:
            raise Failed(f"{url} does not keep connections alive")
        return times

    def one_each(self, url, times):
        """Time of each of so many calls, with a process for each."""
        found = []
        for number in range(times):
            config = self.folder / "config"
            config.write_text(self._transfer(url, number % self.count))
            before = time.perf_counter()
            subprocess.run(["curl", "--disable", "--config", config], stdout=subprocess.DEVNULL, check=True)
            found.append(time.perf_counter() - before)
        return found

    def _check(self, number, status):
        answer = (self.folder / f"{number}.answer").read_bytes()
        if status != "200" or b"[DONE]" not in answer:
            raise Failed(f"request {number} got {status}: {answer[:600].decode(errors='replace')}")


def bare(url, bodies, key):
    """Time of each call by a client that writes to one socket and reads to the end of the stream."""
    target = urlsplit(url)
    head = (
        f"POST {target.path}{PATH} HTTP/1.1\r\nHost: {target.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: "
    )
    times = []
    with socket.create_connection((target.hostname, target.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for body in bodies:
            request = f"{head}{len(body)}\r\n\r\n".encode() + body
            before = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while not answer.endswith(END):
                piece = connection.recv(1 << 16)
                if not piece:
                    raise Failed(f"{url} closed the connection: {answer[:600]}")
                answer += piece
            times.append(time.perf_counter() - before)
    return times[1:]


class Proxy:
    """The LiteLLM proxy with one model, one key for it, and one key to be asked with."""

    key = "sk-bench"

    def __init__(self, binary, folder, url):
        self.folder = folder / "litellm"
        self.folder.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        entry = {"model": "openai/scripted", "api_base": url, "api_key": "bench"}
        config = {
            "model_list": [{"model_name": "scripted", "litellm_params": entry}],
            # Short keys are refused otherwise, and so is none.
            "general_settings": {"master_key": self.key, "dangerously_permit_weak_or_unset_master_key": True},
        }
        (self.folder / "config.yaml").write_text(json.dumps(config))
        command = [binary, "--config", str(self.folder / "config.yaml"), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        # Its price table is the one it brings along; it has none of this machine's settings and keys.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        self.url = f"http://127.0.0.1:{port}/v1"
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder
            )
        try:
            self._wait(port)
        except Failed:
            self.__exit__()
            raise

    def _wait(self, port):
        until = time.monotonic() + 180
        while time.monotonic() < until and self.process.poll() is None:
            try:
                there = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                there.request("GET", "/health/liveliness")
                if there.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.2)
        tail = (self.folder / "log").read_text(errors="replace")[-1500:]
        raise Failed(f"the LiteLLM proxy did not start:\n{tail}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
