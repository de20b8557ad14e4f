"""Find processes of an app that still run with previous settings, such as a scheduled run."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flaskstack.app_dir import AppDir
from flaskstack.settings import Settings


class Process(NamedTuple):
    """A process, its control group, and its start time."""

    pid: int
    name: str
    group: str
    began: float

    def __str__(self) -> str:
        """Return a description without arguments, which may be secret."""
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.began))
        return f"{self.name} (process {self.pid}, since {began})"


def processes(uid: int, proc: Path, booted: float) -> Iterator[Process]:
    """Return the processes of a user."""
    for folder in proc.glob("[0-9]*"):
        try:
            if folder.stat().st_uid != uid:
                continue
            # The name is in brackets and may contain any character.
            before, _, after = (folder / "stat").read_text().rpartition(")")
            group = (folder / "cgroup").read_text()
        except OSError:
            continue  # the process has ended
        state, ticks = after.split()[0], int(after.split()[19])
        if state != "Z":
            began = booted + ticks / os.sysconf("SC_CLK_TCK")
            yield Process(int(folder.name), before.partition("(")[2], group, began)


def stale_processes(uid: int, since: float, new: str, proc: Path = Path("/proc")) -> list[Process]:
    """Return a user's processes that started before a time, oldest first.

    Processes of the unit `new` are excluded: they started with the active settings.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = [
        process
        for process in processes(uid, proc, booted)
        if process.began < since and f"/{new}" not in process.group
    ]
    return sorted(found, key=lambda process: process.began)


def wait(params: dict[str, Any]) -> dict[str, Any]:
    """Wait until no stale process is left, at most `timeout` seconds; return the rest."""
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    uid = pwd.getpwnam(params["user"]).pw_uid
    since = (settings.etc / "current").lstat().st_mtime
    web = f"{app_dir.app}-web@{app_dir.live()}.service"
    deadline = time.monotonic() + params["timeout"]
    while (left := stale_processes(uid, since, web)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return {"changed": False, "stale": [str(process) for process in left]}
