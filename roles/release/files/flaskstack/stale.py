"""Processes of an app that began with the settings of before, such as a scheduled run."""

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
    """A process, its control group, and the time of day that it began at."""

    pid: int
    name: str
    group: str
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
            group = (folder / "cgroup").read_text()
        except OSError:
            continue  # it has ended
        state, ticks = after.split()[0], int(after.split()[19])
        if state != "Z":
            began = booted + ticks / os.sysconf("SC_CLK_TCK")
            yield Process(int(folder.name), before.partition("(")[2], group, began)


def stale_processes(uid: int, since: float, new: str, proc: Path = Path("/proc")) -> list[Process]:
    """Return a user's processes that began before a time, the eldest first.

    Those of the unit `new` are left out: they began with the settings that are in use since then.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = [
        process
        for process in processes(uid, proc, booted)
        if process.began < since and f"/{new}" not in process.group
    ]
    return sorted(found, key=lambda process: process.began)


def wait(params: dict[str, Any]) -> dict[str, Any]:
    """Wait until there are none, for at most `timeout` seconds; return those that are left."""
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    uid = pwd.getpwnam(params["user"]).pw_uid
    since = (settings.etc / "current").lstat().st_mtime
    web = f"{app_dir.app}-web@{app_dir.live()}.service"
    deadline = time.monotonic() + params["timeout"]
    while (left := stale_processes(uid, since, web)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return {"changed": False, "stale": [str(process) for process in left]}
