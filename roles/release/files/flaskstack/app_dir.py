"""State of an app on a host: its releases, its two slots, and the active release."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from flaskstack.errors import DeployError
from flaskstack.files import link, listing, read, remove, sync, target, write

SLOTS = ("a", "b")
LOCK_TIMEOUT = 30  # seconds to wait for a change by another process
TIME = "%Y-%m-%dT%H:%M:%SZ"


class AppDir:
    """The folder of an app. Its links change atomically."""

    def __init__(self, root: str | Path, app: str) -> None:
        """Use `root`, the folder of the app named `app`."""
        self.root, self.app = Path(root), app
        self.releases, self.environments = self.root / "releases", self.root / "environments"
        self.instances = self.root / "instances"
        self.socket_link = self.root / "web.sock"  # for nginx

    @contextmanager
    def locked(self, timeout: float = LOCK_TIMEOUT) -> Iterator[TextIOWrapper]:
        """Hold this app's lock on this host; yield its file, which a child may inherit.

        Text written to the file appears in the error message of other processes. Raises DeployError
        when the lock is not free within `timeout` seconds. It uses fcntl, because locks of
        fasteners are not inherited, and neither fasteners nor portalocker names the holder.
        """
        with (self.root / ".lock").open("a+") as file:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.seek(0)
                        holder = f": {text}" if (text := file.read().strip()) else ""
                        reason = f"another process is changing {self.app} on this host{holder}. "
                        reason += "Wait until it has ended"
                        raise DeployError("Acquire the lock", reason) from None
                    time.sleep(0.2)
            file.truncate(0)
            yield file

    def socket(self, slot: str) -> str:
        """Return the path of a slot's socket."""
        return f"/run/{self.app}/{slot}.sock"

    def release_in(self, slot: str) -> str:
        """Return the release in a slot; empty when the slot is not in use."""
        return target(self.instances / slot) if slot else ""

    def live(self) -> str:
        """Return the slot that gets traffic; empty when no release is active."""
        slot = target(self.socket_link).removesuffix(".sock")
        return slot if slot in SLOTS and self.release_in(slot) else ""

    def free(self) -> str:
        """Return the slot that gets no traffic."""
        return "b" if self.live() == "a" else "a"

    def serving(self) -> str:
        """Return the active release; empty when there is none."""
        return self.release_in(self.live())

    def assign_slot(self, slot: str, release: str) -> None:
        """Assign a release to a slot; an empty release clears the slot."""
        link(self.instances / slot, f"../releases/{release}" if release else "")

    def current(self) -> str:
        """Return the release of static files and background processes."""
        return target(self.root / "current")

    def previous(self) -> str:
        """Return the previous release. Browsers may still request its static files."""
        return target(self.root / "previous")

    def activate(self, slot: str, release: str, previous: str) -> None:
        """Point the links to a slot's release. The socket link is last, as it switches requests."""
        link(self.root / "previous", f"releases/{previous}" if previous else "")
        link(self.root / "current", f"releases/{release}" if release else "")
        link(self.socket_link, self.socket(slot) if slot else "")

    # Record of a change in progress. After an interruption, the next deploy recovers from it.

    def pending(self) -> dict[str, Any]:
        """Return the record of an unfinished change; empty when there is none."""
        return json.loads(read(self.root / ".deploying") or "{}")

    def begin_change(self, **pending: Any) -> None:
        """Record that a change has begun."""
        write(self.root / ".deploying", json.dumps(pending))

    def end_change(self) -> None:
        """Remove the record of the change."""
        (self.root / ".deploying").unlink(missing_ok=True)
        sync(self.root)

    # Deploy history.

    def history(self) -> list[dict[str, str]]:
        """Return the deploys of this host, oldest first."""
        lines = (read(self.root / "deploys.jsonl") or "").splitlines()
        return [record for record in map(parse, lines) if record]

    def record(self, pending: dict[str, Any]) -> None:
        """Add a deploy to the history."""
        history = self.history()
        entry = {
            "release": pending["id"],
            "settings": pending["settings"],
            "previous": pending["serving"],
            "previous_settings": pending["serving_settings"],
        }
        if history and entry.items() <= history[-1].items():
            return  # recorded before the deploy was interrupted
        commits = [each.get("commit") for each in history if each["release"] == pending["id"]]
        entry["commit"] = pending["commit"] or next(filter(None, reversed(commits)), "")
        entry |= {name: pending[name] for name in ("by", "action")}
        entry["time"] = datetime.now(UTC).strftime(TIME)
        with (self.root / "deploys.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def settings_of(self, release: str) -> str:
        """Return the last settings that a release was active with; empty when unknown."""
        found = [each.get("settings", "") for each in self.history() if each["release"] == release]
        return found[-1] if found else ""

    # Removal of old releases.

    def newest_first(self) -> list[Path]:
        """Return the releases on this host, most recently active or installed first."""
        activated = {entry["release"]: entry["time"] for entry in self.history()}

        def age(release: Path) -> str:
            installed = datetime.fromtimestamp(release.lstat().st_mtime, UTC)
            return max(installed.strftime(TIME), activated.get(release.name, ""))

        return sorted(listing(self.releases), key=age, reverse=True)

    def installed(self) -> list[str]:
        """Return the environments that are complete."""
        return [path.name for path in listing(self.environments) if (path / ".complete").exists()]

    def in_use(self) -> set[str]:
        """Return the releases that a link points to or in which a running process was started."""
        used = {self.current(), self.previous(), *map(self.release_in, SLOTS)}
        prefix = f"{self.releases}/"
        for name in os.listdir("/proc"):
            with suppress(OSError):  # no process, or it has ended
                folder = os.readlink(f"/proc/{name}/cwd")
                if folder.startswith(prefix):
                    used.add(folder.removeprefix(prefix).partition("/")[0])
        return used - {""}

    def prune(self, keep: int) -> list[str]:
        """Remove releases beyond the last `keep` that are not in use, and unused environments."""
        kept, releases = self.in_use(), self.newest_first()
        for path in releases:
            if len(kept) < keep and not path.name.startswith("."):
                kept.add(path.name)
        used = {environment_of(self.releases / name) for name in kept}
        removed = [path for path in releases if path.name not in kept]
        removed += [path for path in listing(self.environments) if path.name not in used]
        for path in removed:
            remove(path)
        return [str(path.relative_to(self.root)) for path in removed]

    def discard(self, release: str) -> bool:
        """Remove a release that was never active; return whether it was removed."""
        path = self.releases / release
        was_active = any(entry["release"] == release for entry in self.history())
        if not release or was_active or release in self.in_use() or not path.is_dir():
            return False
        remove(path)
        return True


def parse(line: str) -> dict[str, str]:
    """Return a parsed line of the history; empty when the line is truncated."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def environment_of(release: Path) -> str:
    """Return the name of a release's environment."""
    return target(release / ".venv")
