#!/usr/bin/env python3
"""Measures forge beside other programs, in one go on one machine, and prints the figures with the targets.

    scripts/bench/run.sh [--steps 100] [--rounds 10]

Beside forge stand a minimal Python loop without sandbox or journal (loop.py), mini-swe-agent, and plain fork+exec of
the command that each step runs. The model is a scripted server on this machine that answers at once.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import measure  # noqa: E402

TASK = "Say that you are ready."
LOOP = Path(__file__).parent / "loop.py"
# What each step runs: it writes, so that forge takes a snapshot after it. And what ends a run of mini-swe-agent.
STEP = {"name": "run_shell|bash", "arguments": {"command": "echo step >> steps.log"}}
SUBMIT = {"name": "bash", "arguments": {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}}


class Forge:
    """forge with its native sandbox and its durable journal."""

    name = "forge"

    def __init__(self, binary, home):
        self.binary, self.home = binary, home
        self.repository = home / "repository"
        home.mkdir()
        self.repository.mkdir()
        subprocess.run(["git", "init", "--quiet", str(self.repository)], check=True)
        (self.repository / "README.md").write_text("# Bench\n")

    def start(self, url):
        command = [self.binary, "run", TASK, "--repo", str(self.repository)]
        command += ["--provider", "custom", "--model", "scripted"]
        limits = {
            "FORGE_AGENT_MAX_ITERATIONS": "10000",
            "FORGE_AGENT_MAX_TOKENS_PER_RUN": "1000000000",
            "FORGE_RUNTIME_MAX_SHELL_COMMANDS": "10000",
        }
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), "FORGE_MODEL_BASE_URL": url}
        return command, {"env": {**environment, **limits}, "cwd": self.repository}

    ending = {"text": "done"}


class Loop:
    """The minimal Python loop."""

    name = "python loop"

    def __init__(self, home):
        self.home = home
        home.mkdir()

    def start(self, url):
        return [sys.executable, str(LOOP), url, TASK], {"cwd": self.home}

    ending = {"text": "done"}


class Mini:
    """mini-swe-agent, told not to ask, not to price and not to fetch price tables."""

    name = "mini-swe-agent"

    def __init__(self, binary, home):
        self.binary, self.home = binary, home
        home.mkdir()

    def start(self, url):
        command = [self.binary, "--yolo", "--task", TASK, "--model", "openai/scripted", "--cost-limit", "0"]
        command += ["--exit-immediately", "--output", str(self.home / "trajectory.json")]
        settings = {
            "OPENAI_API_KEY": "bench",
            "OPENAI_BASE_URL": url,
            "OPENAI_API_BASE": url,
            "MSWEA_CONFIGURED": "true",
            "MSWEA_GLOBAL_CONFIG_DIR": str(self.home),
            "MSWEA_SILENT_STARTUP": "1",
            "MSWEA_COST_TRACKING": "ignore_errors",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        return command, {"env": {**os.environ, **settings}, "cwd": self.home}

    ending = {"text": "", "tool_calls": [SUBMIT]}


class Server:
    """The scripted model server with a script of so many steps."""

    def __init__(self, binary, folder, program, steps):
        script = folder / f"{program.name.replace(' ', '-')}-{steps}.json"
        step = getattr(program, "step", STEP)
        replies = [{"text": "", "tool_calls": [step], "repeat": steps}] if steps else []
        script.write_text(json.dumps({"replies": [*replies, program.ending], "select": "by_turn"}))
        self.process = subprocess.Popen([binary, "--script", str(script)], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip() + "/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def steps_of(programs, arguments, folder):
    """Wall and processor time per step, and peak memory of the long run, of each program.

    The programs take turns, so that a machine that is slower for a while is so for all of them.
    """
    with contextlib.ExitStack() as servers:
        def server(program, steps):
            return servers.enter_context(Server(arguments.server, folder, program, steps)).url

        urls = {program.name: (server(program, 0), server(program, arguments.steps)) for program in programs}
        logs = {program.name: folder / f"{program.name.replace(' ', '-')}.log" for program in programs}
        runs = {program.name: ([], []) for program in programs}
        for number in range(arguments.rounds):
            print(f"bench: steps, round {number + 1} of {arguments.rounds} …", file=sys.stderr, flush=True)
            for program in programs:
                for url, times in zip(urls[program.name], runs[program.name]):
                    times.append(measure.run(*program.start(url), logs[program.name]))
        results = {}
        for program in programs:
            wall, cpu = measure.per_step(*runs[program.name], arguments.steps)
            own, family = measure.peak_memory(*program.start(urls[program.name][1]), logs[program.name])
            results[program.name] = {"wall": wall, "cpu": cpu, "memory": own, "family_memory": family}
    return results


def measure_all(arguments, folder):
    """Everything that is printed, by program."""
    home = Path(tempfile.mkdtemp(prefix="forge-bench-", dir=folder))
    programs = [Forge(arguments.forge, home / "forge"), Loop(home / "loop")]
    if shutil.which(arguments.peer):
        programs.append(Mini(arguments.peer, home / "mini"))
    listener = measure.Listener()
    results = {}
    try:
        for program in programs:
            print(f"bench: start of {program.name} …", file=sys.stderr, flush=True)
            start, prompt = measure.first_request(listener, program.start, arguments.rounds * 2, folder / "start.log")
            results[program.name] = {"start": start, "prompt": prompt}
        for name, steps in steps_of(programs, arguments, folder).items():
            results[name].update(steps)
        print("bench: measuring fork+exec …", file=sys.stderr, flush=True)
        for name, command in {"true": ["/usr/bin/true"], "sh -c true": ["/bin/sh", "-c", "true"]}.items():
            wall, cpu = measure.fork_exec(command, 2000)
            results[f"fork+exec {name}"] = {"wall": wall, "cpu": cpu}
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return results


ROWS = [
    ("start to first request, ms", "start", 1e3),
    ("wall per step, ms", "wall", 1e3),
    ("CPU per step, ms", "cpu", 1e3),
    ("peak memory, MB", "memory", 1e-6),
    ("  with its processes, MB", "family_memory", 1e-6),
    ("first prompt, kB", "prompt", 1e-3),
]


def print_table(results, steps):
    """All figures; in brackets how many times forge's figure each one is."""
    forge = results["forge"]
    names = list(results)
    print(f"\n{'over ' + str(steps) + ' steps':<28}" + "".join(f"{name:>22}" for name in names))
    for title, key, scale in ROWS:
        cells = []
        for name in names:
            value = results[name].get(key)
            if value is None:
                cells.append("")
            elif name == "forge":
                cells.append(f"{value * scale:.2f}")
            else:
                cells.append(f"{value * scale:.2f} (x{value / forge[key]:.2f})")
        print(f"{title:<28}" + "".join(f"{cell:>22}" for cell in cells))


def print_targets(results):
    """Each target beside its measure, and by how much it is missed."""
    forge, loop, plain = results["forge"], results["python loop"], results["fork+exec true"]
    rows = [
        ("start to first request", forge["start"] * 1e3, 15.0, "ms"),
        ("wall per step / python loop's", forge["wall"] / loop["wall"], 1.5, "x"),
        ("CPU per step above fork+exec", (forge["cpu"] - plain["cpu"]) * 1e3, 1.0, "ms"),
        ("peak memory of forge", forge["memory"] / 1e6, 30.0, "MB"),
        ("first prompt", forge["prompt"] / 1e3, 6.0, "kB"),
    ]
    print(f"\n{'target':<34}{'measured':>12}{'wanted':>12}")
    for title, value, wanted, unit in rows:
        verdict = "met" if value <= wanted else f"MISSED by {value - wanted:.2f} {unit} (x{value / wanted:.2f})"
        print(f"{title:<34}{value:>9.2f} {unit:<2}{'≤':>5}{wanted:>5.1f} {unit:<2}  {verdict}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forge", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--peer", default="mini")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    try:
        results = measure_all(arguments, arguments.folder)
    except measure.Failed as error:
        sys.exit(f"bench: {error}")
    (arguments.folder / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"on {os.cpu_count()} cores; times are the best of {arguments.rounds} runs, the start is a median")
    print_table(results, arguments.steps)
    print_targets(results)


if __name__ == "__main__":
    main()
