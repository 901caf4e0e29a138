#!/usr/bin/env python3
"""Measures what forge adds to a model call, beside curl and the LiteLLM proxy, and how fast streams are taken apart.

    scripts/bench/calls.py --forge BIN --server BIN --streams BIN --litellm BIN --folder DIR [--calls 100] [--rounds 7]

A run of forge with its durable journal makes so many model calls, whose tool calls are answered without a sandbox
(`tools.mock`). Its requests are recorded; curl sends the same bytes to the same server over one connection, and to the
proxy in front of the same server. What forge adds is everything between one request and the next, less curl's time.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import measure  # noqa: E402
import report  # noqa: E402
import wire  # noqa: E402

# What is wanted: milliseconds over curl, times less than the proxy, millions of bytes per second.
ADDED, TIMES_LESS, STREAMS = 1.0, 5.0, 500.0


class Forge(report.Forge):
    """forge, with tools that only say what they were asked."""

    step = {"name": "read_file", "arguments": {"path": "README.md"}}

    def start(self, url):
        command, options = super().start(url)
        return command, {**options, "env": {**options["env"], "FORGE_TOOLS_MOCK": "true"}}

    def gaps(self):
        """Times between the requests of the latest run, from its journal."""
        runs = self.home / ".local/share/forge/runs"
        latest = max(runs.iterdir(), key=lambda run: run.name)
        lines = (latest / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines if '"model.requested"' in line]
        times = [datetime.fromisoformat(event["ts"]).timestamp() for event in events]
        return [later - earlier for earlier, later in zip(times, times[1:])]


def requests_of(forge, url, log):
    """The bodies of a run's requests."""
    with wire.Recorder(url) as recorder:
        measure.run(*forge.start(recorder.url), log)
        return list(recorder.bodies)


def measure_calls(arguments, folder):
    """Times of calls by who makes them: lists of single calls, or of means of whole runs."""
    forge, log = Forge(arguments.forge, folder / "forge"), folder / "log"
    found = {name: [] for name in ("curl", "bare", "forge", "forge_run", "forge_cpu", "litellm", "litellm_bare")}
    with report.Server(arguments.server, folder, forge, 0) as none, report.Server(
        arguments.server, folder, forge, arguments.calls
    ) as many:
        bodies = requests_of(forge, many.url, log)
        if len(bodies) != arguments.calls + 1:
            raise measure.Failed(f"forge made {len(bodies)} calls instead of {arguments.calls + 1}")
        curl = wire.Curl(folder / "requests", bodies, wire.Proxy.key)
        # Every fifth request is enough for a proxy that takes tens of milliseconds.
        fewer = wire.Curl(folder / "fewer", bodies[::5], wire.Proxy.key)
        proxy = proxy_of(arguments, folder, many.url)
        try:
            for number in range(arguments.rounds + 1):
                short = measure.run(*forge.start(none.url), log)
                long = measure.run(*forge.start(many.url), log)
                one = {
                    "forge": forge.gaps(),
                    "forge_run": [(long[0] - short[0]) / arguments.calls],
                    "forge_cpu": [(long[1] - short[1]) / arguments.calls],
                    "curl": curl.kept_alive(many.url),
                    "bare": wire.bare(many.url, bodies, wire.Proxy.key),
                    "litellm": fewer.kept_alive(proxy.url) if proxy else [],
                    "litellm_bare": wire.bare(proxy.url, bodies[::5], wire.Proxy.key) if proxy else [],
                }
                # The first round warms caches up.
                for name in one if number else ():
                    found[name] += one[name]
            found["curl_process"] = curl.one_each(many.url, min(50, arguments.calls))
        finally:
            if proxy:
                proxy.__exit__()
    found["kilobytes"] = statistics.mean(map(len, bodies)) / 1e3
    return found


def proxy_of(arguments, folder, url):
    """The proxy, or nothing where it could not be installed or does not start."""
    if not shutil.which(arguments.litellm):
        return None
    try:
        print("bench: starting the LiteLLM proxy …", file=sys.stderr, flush=True)
        return wire.Proxy(arguments.litellm, folder, url)
    except measure.Failed as error:
        print(f"bench: {error}", file=sys.stderr)
        return None


def print_calls(found, arguments):
    """What a call takes and what is added to curl's."""
    lists = {name: times for name, times in found.items() if isinstance(times, list) and times}
    middle = {name: statistics.median(times) * 1e3 for name, times in lists.items()}
    plain, added = middle["curl"], middle["forge"] - middle["curl"]
    print(f"\n{'one streamed model call, ms':<48}{'median':>9}{'over curl':>11}{'over plain':>12}{'x forge':>10}")
    rows = [
        ("curl, one connection", "curl"),
        ("plain client, one connection", "bare"),
        ("curl, a process for each", "curl_process"),
        ("forge: the whole path, from request to request", "forge"),
        ("  the same from the wall time of whole runs", "forge_run"),
        ("  of which processor time", "forge_cpu"),
        ("curl through the LiteLLM proxy", "litellm"),
        ("plain client through the LiteLLM proxy", "litellm_bare"),
    ]
    for title, name in rows:
        if name not in middle:
            print(f"{title:<48}not measured: it is not installed or did not start")
        elif name in ("curl", "bare", "forge_cpu"):
            print(f"{title:<48}{middle[name]:>9.2f}")
        else:
            over, over_plain = middle[name] - plain, middle[name] - middle["bare"]
            print(f"{title:<48}{middle[name]:>9.2f}{over:>11.2f}{over_plain:>12.2f}{over / added:>10.2f}")
    print(
        f"{arguments.rounds} rounds of {arguments.calls} calls; a request has {found['kilobytes']:.1f} kB in the mean; "
        "the run's row is the median of means"
    )
    return middle


def print_call_targets(middle):
    """Each target of calls beside its measure."""
    added = middle["forge"] - middle["curl"]
    run = middle["forge_run"] - middle["curl"]
    print(f"\n{'target':<46}{'measured':>12}{'wanted':>12}")
    for title, value in (("forge's added time per call, median", added), ("  from whole runs", run)):
        verdict = "met" if value <= ADDED else f"MISSED by {value - ADDED:.2f} ms (x{value / ADDED:.2f})"
        print(f"{title:<46}{value:>9.2f} ms{'≤':>5}{ADDED:>5.1f} ms  {verdict}")
    if "litellm" not in middle:
        print(f"{'added by LiteLLM / added by forge':<46}   not measured: LiteLLM is missing")
        return
    # The larger of forge's two figures stands against the smaller of the proxy's, over the same client without it.
    proxy = min(middle["litellm"] - middle["curl"], middle["litellm_bare"] - middle["bare"])
    ratio = proxy / max(added, run, 1e-6)
    verdict = "met" if ratio >= TIMES_LESS else f"MISSED (x{ratio / TIMES_LESS:.2f})"
    print(f"{'added by LiteLLM / added by forge':<46}{ratio:>9.2f} x {'≥':>5}{TIMES_LESS:>5.1f} x   {verdict}")


def print_streams(binary):
    """Streams of providers taken apart on one core, each beside what is wanted."""
    done = subprocess.run([binary], stdout=subprocess.PIPE, text=True, check=False)
    found = re.findall(r"^sse (\S+): (\d+) MB/s, (\d+) bytes per event$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not found:
        raise measure.Failed(f"{binary} ended with {done.returncode} and said {done.stdout!r}")
    print(f"\n{'streams taken apart, one core':<46}{'measured':>12}{'wanted':>12}")
    for name, speed, size in found:
        verdict = "met" if float(speed) >= STREAMS else f"MISSED (x{float(speed) / STREAMS:.2f})"
        title = f"{name}, {size} bytes per event"
        print(f"{title:<46}{float(speed):>7.0f} MB/s{'≥':>5}{STREAMS:>4.0f} MB/s  {verdict}")
    return {name: float(speed) for name, speed, _ in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--streams", required=True)
    parser.add_argument("--litellm", default="litellm")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="forge-bench-calls-", dir=arguments.folder))
    try:
        print("bench: measuring model calls …", file=sys.stderr, flush=True)
        found = measure_calls(arguments, folder)
        print(f"\non {os.cpu_count()} cores, all of it on this machine's loopback")
        middle = print_calls(found, arguments)
        print_call_targets(middle)
        middle["streams"] = print_streams(arguments.streams)
    except measure.Failed as error:
        sys.exit(f"bench: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (arguments.folder / "calls.json").write_text(json.dumps(middle, indent=1) + "\n")


if __name__ == "__main__":
    main()
