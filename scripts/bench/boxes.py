#!/usr/bin/env python3
"""Prints what boxes, views and snapshots cost, beside plain fork+exec, other programs and git, with the targets.

    scripts/bench/boxes.py --boxes forge-sandbox-bench --snapshots forge-snapshot-bench --folder DIR [--image NAME]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = [
    ("plain fork+exec", "fork_exec_ms"),
    ("native, warm: a command in an open box", "native_warm_ms"),
    ("native, cold: box and a command", "native_cold_ms"),
    ("native, cold, nothing begun ahead", "native_cold_from_nothing_ms"),
    ("native, cold, with a copy-on-write view", "native_view_ms"),
    ("the same, nothing begun ahead", "native_view_from_nothing_ms"),
    ("bwrap --unshare-all", "bwrap_ms"),
    ("docker through our init, warm", "docker_init_warm_ms"),
    ("docker through our init, cold", "docker_init_cold_ms"),
    ("docker exec", "docker_exec_ms"),
    ("docker run --rm", "docker_run_ms"),
]
TARGETS = [
    ("native warm / fork+exec", "native_warm_ms", "fork_exec_ms", 1.3, "x"),
    ("native cold / fork+exec", "native_cold_ms", "fork_exec_ms", 4.0, "x"),
    ("docker through our init / fork+exec", "docker_init_warm_ms", "fork_exec_ms", 3.0, "x"),
    ("opening the view of a 5 GB tree", "view_5gb_ms", None, 50.0, "ms"),
    ("snapshot, one of 100,000 files changed", "snapshot_overlay_ms", None, 20.0, "ms"),
]


def answer(command):
    """The JSON that a program prints; what it can't measure stands there as a text."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: {command[0]} ended with {done.returncode}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", required=True)
    parser.add_argument("--snapshots", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--image")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="forge-bench-boxes-", dir=arguments.folder))
    try:
        print("bench: measuring boxes …", file=sys.stderr, flush=True)
        image = [arguments.image] if arguments.image else []
        found = answer([arguments.boxes, str(folder), *image])
        print("bench: measuring snapshots …", file=sys.stderr, flush=True)
        found |= answer([arguments.snapshots, str(folder / "snapshots")])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (arguments.folder / "boxes.json").write_text(json.dumps(found, indent=1) + "\n")
    plain = found["fork_exec_ms"]
    print(f"\n{'one command':<44}{'ms':>10}{'x fork+exec':>14}")
    for title, key in ROWS:
        value = found.get(key, "not measured: no image was named")
        if isinstance(value, str):
            print(f"{title:<44}  {value}")
        else:
            print(f"{title:<44}{value:>10.2f}{value / plain:>14.2f}")
    print(f"\n{'views and snapshots':<44}{'ms':>10}")
    for key, value in found.items():
        if key.endswith("_ms") and key.startswith(("view", "snapshot", "base", "git")):
            print(f"{key:<44}{value if isinstance(value, str) else format(value, '10.2f')}")
    print(f"\n{'target':<44}{'measured':>12}{'wanted':>12}")
    for title, key, against, wanted, unit in TARGETS:
        value = found.get(key)
        if not isinstance(value, (int, float)):
            print(f"{title:<44}{'not measured':>12}")
            continue
        value = value / found[against] if against else value
        verdict = "met" if value <= wanted else f"MISSED (x{value / wanted:.2f})"
        print(f"{title:<44}{value:>9.2f} {unit:<2}{'≤':>5}{wanted:>5.1f} {unit:<2}  {verdict}")
    if all(isinstance(found.get(key), (int, float)) for key in ("snapshot_overlay_ms", "git_add_write_tree_ms")):
        ratio = found["git_add_write_tree_ms"] / found["snapshot_overlay_ms"]
        verdict = "met" if ratio >= 5 else f"MISSED (x{ratio / 5:.2f})"
        print(f"{'git add + write-tree / snapshot':<44}{ratio:>9.2f} x {'≥':>5}{5:>5.1f} x   {verdict}")


if __name__ == "__main__":
    main()
