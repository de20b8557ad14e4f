#!/usr/bin/env python3
"""List the slowest playbooks, tasks and tests in the logs of ./stack test.

tools/slowest.py .local/test/*.log

Each log is named after its suite. Playbooks and tasks are those of Molecule, with the callback
profile_tasks; tests are those that pytest --durations lists.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROWS = 10
ANSI = re.compile(r"\x1b\[[0-9;]*m")
STEP = re.compile(r"➜ (\w+): Executing$")
# Line below TASKS RECAP: date, duration of the last task, duration of the playbook.
PLAYBOOK = re.compile(r"^\w+ \d+ \w+ \d{4} .*\) +(\d+):(\d\d):(\d\d\.\d+) ")
TASK = re.compile(r"^(\S.*?) -* ?(\d+\.\d\d)s$")
TEST = re.compile(r"^(\d+\.\d\d)s (setup|call|teardown) +(?:[^:]*/)?(\S.*)$")


@dataclass(frozen=True)
class Time:
    """Duration of a playbook, task or test."""

    kind: str
    name: str
    seconds: float


def times(suite: str, lines: Iterable[str]) -> Iterator[Time]:
    """Yield the times in the log of a suite."""
    step, recap = "", False
    for line in (ANSI.sub("", line).rstrip() for line in lines):
        if found := STEP.search(line):
            step, recap = found[1], False
        elif line.startswith(("TASKS RECAP ", "PLAY ")):
            recap = line.startswith("TASKS")
        elif recap and (found := PLAYBOOK.match(line)):
            hours, minutes, seconds = map(float, found.groups())
            yield Time("playbooks", f"{suite}: {step}", 3600 * hours + 60 * minutes + seconds)
        elif recap and (found := TASK.match(line)):
            yield Time("tasks", found[1], float(found[2]))
        elif found := TEST.match(line):
            name = f"{suite}: {found[3]}"
            name += "" if found[2] == "call" else f" ({found[2]})"
            yield Time("tests", name, float(found[1]))


def table(heading: str, entries: Iterable[Time]) -> Iterator[str]:
    """Yield the lines of the slowest entries. Durations of one name are added up."""
    all_of: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        all_of[entry.name].append(entry.seconds)
    yield heading
    for name, seconds in sorted(all_of.items(), key=lambda item: -sum(item[1]))[:ROWS]:
        repeated = f" ({len(seconds)} times)" if len(seconds) > 1 else ""
        yield f"{sum(seconds):8.1f} s  {name}{repeated}"


def main(logs: list[str]) -> None:
    """Print the tables."""
    found: list[Time] = []
    for log in map(Path, logs):
        found += times(log.stem, log.read_text(errors="replace").splitlines())
    for kind in ("playbooks", "tasks", "tests"):
        print(*table(f"   {kind}", (time for time in found if time.kind == kind)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
