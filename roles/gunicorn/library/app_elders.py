"""Wait until no process of the app is older than its environment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: app_elders
short_description: Wait until no process of the app is older than its environment
description:
  - Whatever began before the file was written last may still use what the file held then.
  - Nothing is ended. What is left after I(timeout) is named.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "user": {"type": "str", "required": True},
    "file": {"type": "path", "required": True},
    "timeout": {"type": "int", "required": True},  # seconds
}


class Process(NamedTuple):
    """A process, and the time of day that it began at."""

    pid: int
    name: str
    began: float

    def __str__(self) -> str:
        """Return it for people; arguments may be secret."""
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began))
        return f"{self.name} (process {self.pid}, since {began})"


def processes(uid: int, proc: Path, booted: float) -> Iterator[Process]:
    """Return the processes of a user."""
    for folder in proc.glob("[0-9]*"):
        try:
            if folder.stat().st_uid != uid:
                continue
            # The name is in brackets, and may hold anything.
            before, _, after = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue  # it has ended
        state, ticks = after.split()[0], int(after.split()[19])
        if state != "Z":
            began = booted + ticks / os.sysconf("SC_CLK_TCK")
            yield Process(int(folder.name), before.partition("(")[2], began)


def elders(uid: int, written: float, proc: Path = Path("/proc")) -> list[Process]:
    """Return the processes of a user that began before a file was written, the eldest first."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = [process for process in processes(uid, proc, booted) if process.began < written]
    return sorted(found, key=lambda process: process.began)


def main() -> None:
    """Run as an Ansible module."""
    import pwd

    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    uid = pwd.getpwnam(module.params["user"]).pw_uid
    written = Path(module.params["file"]).stat().st_mtime
    deadline = time.monotonic() + (0 if module.check_mode else module.params["timeout"])
    while (left := elders(uid, written)) and time.monotonic() < deadline:
        time.sleep(0.5)
    module.exit_json(changed=False, elders=[str(process) for process in left])


if __name__ == "__main__":
    main()
