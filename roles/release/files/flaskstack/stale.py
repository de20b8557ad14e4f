"""Find processes of an app that still run with previous settings, such as a scheduled run."""

from __future__ import annotations

import os
import pwd
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flaskstack.app_dir import AppDir
from flaskstack.settings import Settings


class Process(NamedTuple):
    """A process and its start time."""

    started: float
    pid: int
    name: str

    def __str__(self) -> str:
        """Return a description without arguments, which may be secret."""
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"{self.name} (process {self.pid}, since {started})"


def stale_processes(uid: int, since: float, new: str, proc: Path = Path("/proc")) -> list[Process]:
    """Return a user's processes that started before a time, oldest first.

    Processes of the unit `new` are excluded: they started with the active settings.
    """
    booted, found = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME), []
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # the process has ended
            if folder.stat().st_uid != uid or f"/{new}" in (folder / "cgroup").read_text():
                continue
            # The name is in brackets and may contain any character.
            name, _, fields = (folder / "stat").read_text().rpartition(")")
            state, ticks = fields.split()[0], int(fields.split()[19])
            started = booted + ticks / os.sysconf("SC_CLK_TCK")
            if state != "Z" and started < since:
                found.append(Process(started, int(folder.name), name.partition("(")[2]))
    return sorted(found)


def wait(params: dict[str, Any]) -> dict[str, Any]:
    """Wait until stale processes have ended, at most `timeout` seconds; return those left."""
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    uid = pwd.getpwnam(params["user"]).pw_uid
    since = (settings.etc / "current").lstat().st_mtime
    web = f"{app_dir.app}-web@{app_dir.live()}.service"
    deadline = time.monotonic() + params["timeout"]
    while (stale := stale_processes(uid, since, web)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return {"changed": False, "stale": [str(process) for process in stale]}
