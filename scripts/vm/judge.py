"""Reads what forge printed as JSON in a virtual machine.

    judge.py verdict FILE       one line about a verdict; code 1 if a probe failed, each of which is named
    judge.py absent FILE        the probes that were not applicable, each with its reason
    judge.py layer FILE NAME    what became of a layer of a box: its state, the reason and what to do about it
    judge.py view FILE          how a command saw the repository, and what it changed
"""

import json
import sys


def probes(found, state):
    return [probe for probe in found["probes"] if probe["state"] == state]


def verdict(found):
    failed = probes(found, "failed")
    host = found["host"]
    print(
        f"{len(probes(found, 'passed'))} of {len(found['probes'])} probes held, {len(failed)} failed, "
        f"{len(probes(found, 'not_applicable'))} not applicable; user {host['uid']}, cgroups {host['cgroups']}, "
        f"Landlock version {host['landlock']}"
        + "".join(f"\n    {probe['name']} FAILED: {probe['detail']}" for probe in failed)
    )
    return 0 if found["passed"] and not failed and found["probes"] else 1


def absent(found):
    for probe in probes(found, "not_applicable"):
        print(f"{probe['name']}: {probe['why']}")
    return 0


def layer(found, name):
    """Code 1 if the box's report does not name the layer."""
    for one in found["sandbox"]["layers"]:
        if one["name"] == name:
            state = one["state"]
            words = [state] if isinstance(state, str) else [f"{key} ({why})" for key, why in state.items()]
            print("; ".join(words + [one[key] for key in ["remedy"] if one.get(key)]))
            return 0
    print("not in the report")
    return 1


def view(found):
    changed = ", ".join(file["path"] for file in found["files"]) or "nothing"
    print(f"view {found['sandbox']['view']}, code {found['exit_code']}, changed: {changed}")
    return 0


def main():
    what, path, *more = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    what_to_do = {"verdict": verdict, "absent": absent, "layer": layer, "view": view}
    return what_to_do[what](found, *more)


if __name__ == "__main__":
    sys.exit(main())
