"""The deploy lock: a file on a host that names the deploy in progress.

It stays held between tasks. Locks of fasteners or portalocker would end with each task's process.
"""

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

TIMEOUT = 3600  # seconds until the lock of another machine expires
BOOT = Path("/proc/sys/kernel/random/boot_id")

# Holder of the lock: by (user@machine), release (release or action), controller (machine and boot
# that the process id belongs to), pid and time (seconds). A requester also has `running`, the ids
# of all running processes.
Holder = dict[str, Any]


class Lock:
    """The lock of an app on this host, in its folder `root`."""

    def __init__(self, root: Path) -> None:
        """Create the lock object; `acquire` takes the lock."""
        self.root, self.path = root, root / "deploy.json"

    def holder(self) -> Holder:
        """Return the holder; empty when the lock is free."""
        return json.loads(read(self.path) or "{}")

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the folder while the lock file is read and written."""
        try:
            folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise ValidationError(f"{self.root} is missing. Run site.yml") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def acquire(self, requester: Holder, timeout: int = TIMEOUT, force: bool = False) -> Holder:
        """Acquire the lock; return the holder that it replaces, empty if the lock was free.

        Raises ValidationError when another deploy holds it.
        """
        now = int(time.time())
        with self.exclusive():
            held = self.holder()
            own = is_owner(held, requester)
            if held and not (own or force or is_expired(held, requester, now, timeout)):
                raise ValidationError(
                    f"Another deploy holds the lock: {describe(held, now)}. Wait until it has "
                    "ended. If it is dead, take over with -e release_lock=break (on the host: "
                    f"--break-lock). The lock expires after {timeout} s"
                )
            holder = {name: requester[name] for name in ("by", "controller", "pid", "release")}
            write(self.path, json.dumps(holder | {"time": now}) + "\n")
            return {} if own else held

    def release(self, requester: Holder) -> None:
        """Release the lock, if the requester holds it."""
        if self.root.is_dir():
            with self.exclusive():
                if is_owner(self.holder(), requester):
                    self.path.unlink()


def this_process(by: str, release: str) -> Holder:
    """Return this process as a holder."""
    return {
        "by": by,
        "release": release,
        "controller": f"host {BOOT.read_text().strip()}",
        "pid": os.getpid(),
        "running": [int(name) for name in os.listdir("/proc") if name.isdecimal()],
    }


def is_owner(held: Holder, requester: Holder) -> bool:
    """Return whether the requester holds the lock."""
    return (held.get("controller"), held.get("pid")) == (requester["controller"], requester["pid"])


def is_expired(held: Holder, requester: Holder, now: int, timeout: int) -> bool:
    """Return whether the deploy that holds the lock has ended or timed out."""
    controller = held.get("controller", "")
    for machine in (requester, this_process("", "")):
        if controller == machine["controller"]:
            return held.get("pid") not in machine["running"]
    # A command on this host, started before a reboot, has ended.
    return controller.startswith("host ") or now - held["time"] > timeout


def describe(held: Holder, now: int) -> str:
    """Describe a holder: user, release and start time."""
    minutes = max(0, now - held["time"]) // 60
    ago = f"{minutes} minutes ago" if minutes > 1 else "just now"
    since = datetime.fromtimestamp(held["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{held.get('by') or 'somebody'} has been deploying {held.get('release') or 'a release'} "
        f"since {since}, {ago} (process {held.get('pid')} there)"
    )
