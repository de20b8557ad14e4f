"""The deploy lock: a file on a host that says who deploys what, which another deploy reads."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flaskstack.errors import ValidationError
from flaskstack.files import read, write

TIMEOUT = 3600  # seconds until the lock of another machine has expired
BOOT = Path("/proc/sys/kernel/random/boot_id")

# Who holds it: by (user@machine), release (what), controller (the machine and boot whose process
# ids count), pid there, time (seconds), and `running`, all processes there when it was asked for.
Holder = dict[str, Any]


class Lock:
    """The lock of an app on this host, in its folder `root`."""

    def __init__(self, root: Path) -> None:
        """Look at the lock; it is taken by `take`."""
        self.root, self.path = root, root / "deploy.json"

    def holder(self) -> Holder:
        """Return who holds it; empty when nobody does, or when that cannot be read."""
        try:
            found = json.loads(read(self.path) or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) and isinstance(found.get("time"), int) else {}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes of this host from looking meanwhile."""
        try:
            opened = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise ValidationError(f"{self.root} is not there yet. Run site.yml") from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield
        finally:
            os.close(opened)

    def take(self, asks: Holder, timeout: int = TIMEOUT, force: bool = False) -> Holder:
        """Take the lock, and return the deploy that it replaces, if one was cut.

        Raises ValidationError when another deploy is on its way.
        """
        now = int(time.time())
        with self.alone():
            held = self.holder()
            if held and not (own(held, asks) or over(held, asks, now, timeout) or force):
                raise ValidationError(
                    f"Another deploy holds the lock: {describe(held, now)}. Wait until it has "
                    "ended. If it is dead, take over with -e release_lock=break (on the host: "
                    f"--break-lock). The lock expires after {timeout} s"
                )
            known = {name: asks[name] for name in ("by", "controller", "pid", "release")}
            write(self.path, json.dumps(known | {"time": now}) + "\n")
            return {} if own(held, asks) else held

    def release(self, asks: Holder) -> None:
        """Give the lock back, if it is still one's own."""
        if self.root.is_dir():
            with self.alone():
                if own(self.holder(), asks):
                    self.path.unlink()


def this_process(by: str, release: str) -> Holder:
    """Return what a process of this host asks for the lock with."""
    running = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    controller = f"host {BOOT.read_text().strip()}"
    known = {"by": by, "release": release, "controller": controller, "pid": os.getpid()}
    return known | {"running": running}


def own(held: Holder, asks: Holder) -> bool:
    """Return whether the process that asks holds the lock."""
    return (held.get("controller"), held.get("pid")) == (asks["controller"], asks["pid"])


def over(held: Holder, asks: Holder, now: int, timeout: int) -> bool:
    """Return whether the deploy that took the lock cannot go on any more."""
    here = this_process("", "")
    for known in (asks, here):  # of the machine that asks, and of this host
        if held.get("controller") == known["controller"]:
            return held.get("pid") not in known["running"]
    if str(held.get("controller", "")).startswith("host "):
        return True  # a command of this host, before it was booted
    return now - held["time"] > timeout


def describe(held: Holder, now: int) -> str:
    """Return who deploys what since when, in words."""
    minutes = max(0, now - held["time"]) // 60
    ago = f"{minutes} minutes ago" if minutes > 1 else "just now"
    since = datetime.fromtimestamp(held["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{held.get('by') or 'somebody'} deploys {held.get('release') or 'a release'} "
        f"since {since}, {ago} (process {held.get('pid')} there)"
    )
