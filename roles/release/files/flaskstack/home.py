"""What an app has on a host: releases, two slots to run them in, and which of them serves."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SLOTS = ("a", "b")
TIME = "%Y-%m-%dT%H:%M:%SZ"


class Home:
    """The folder of an app. Its links change in one step each, so that nobody sees half of it."""

    def __init__(self, root: str | Path, app: str) -> None:
        """Look at `root`, the folder of the app named `app`."""
        self.root, self.app = Path(root), app
        self.releases, self.environments = self.root / "releases", self.root / "environments"
        self.instances = self.root / "instances"
        self.door = self.root / "web.sock"  # what nginx connects to

    @contextmanager
    def locked(self, seconds: float = 900) -> Iterator[None]:
        """Keep others of this app's deploys off this host; wait until they are through."""
        with (self.root / ".lock").open("a") as file:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield

    def socket(self, slot: str) -> str:
        """Return the path of a slot's socket."""
        return f"/run/{self.app}/{slot}.sock"

    def release_in(self, slot: str) -> str:
        """Return the release that a slot is for; empty when it is not in use."""
        return target(self.instances / slot) if slot else ""

    def live(self) -> str:
        """Return the slot that has the traffic; empty when nothing serves."""
        slot = target(self.door).removesuffix(".sock")
        return slot if slot in SLOTS and self.release_in(slot) else ""

    def free(self) -> str:
        """Return the slot that has no traffic."""
        return "b" if self.live() == "a" else "a"

    def serving(self) -> str:
        """Return the release that has the traffic; empty when there is none."""
        return self.release_in(self.live())

    def occupy(self, slot: str, release: str) -> None:
        """Say that a slot is for a release."""
        link(self.instances / slot, f"../releases/{release}")

    def vacate(self, slot: str) -> None:
        """Say that a slot is not in use."""
        (self.instances / slot).unlink(missing_ok=True)

    def current(self) -> str:
        """Return the release whose files and background processes are in use."""
        return target(self.root / "current")

    def previous(self) -> str:
        """Return the release that served before, whose files visitors may still ask for."""
        return target(self.root / "previous")

    def serve(self, slot: str, release: str, previous: str) -> None:
        """Move everything to a slot: files, background processes' folder, and last the requests."""
        point(self.root / "previous", previous)
        point(self.root / "current", release)
        if slot:
            link(self.door, self.socket(slot))
        else:
            self.door.unlink(missing_ok=True)

    # The note that a deploy is under way. One that is cut leaves it, and the next one cleans up.

    def under_way(self) -> dict[str, Any]:
        """Return the note of a deploy that has begun and not ended; empty when there is none."""
        try:
            return json.loads((self.root / ".deploying").read_text())
        except FileNotFoundError:
            return {}

    def begin(self, **note: Any) -> None:
        """Note that a deploy has begun."""
        replace(self.root / ".deploying", json.dumps(note))

    def end(self) -> None:
        """Note that no deploy is under way any more."""
        (self.root / ".deploying").unlink(missing_ok=True)

    # What served, and when.

    def history(self) -> list[dict[str, str]]:
        """Return the deploys of this host, the oldest first."""
        try:
            lines = (self.root / "deploys.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [record for record in map(parsed, lines) if record]

    def record(
        self, release: str, previous: str, commit: str, by: str, action: str = "deploy"
    ) -> None:
        """Add a deploy to the history."""
        past = self.history()
        if past and (past[-1]["release"], past[-1]["previous"]) == (release, previous):
            return  # written before a deploy was cut
        commits = [entry.get("commit", "") for entry in past if entry["release"] == release]
        entry = {
            "time": datetime.now(UTC).strftime(TIME),
            "release": release,
            "previous": previous,
            "commit": commit or next(filter(None, reversed(commits)), ""),
            "by": by,
            "action": action,  # a rollback is no step forward
        }
        with (self.root / "deploys.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    # What may go.

    def newest_first(self) -> list[Path]:
        """Return the releases on this host, the one that served or came last first."""
        served = {entry["release"]: entry["time"] for entry in self.history()}

        def age(release: Path) -> str:
            came = datetime.fromtimestamp(release.lstat().st_mtime, UTC)
            return max(came.strftime(TIME), served.get(release.name, ""))

        return sorted(listing(self.releases), key=age, reverse=True)

    def installed(self) -> list[str]:
        """Return the environments that are complete."""
        return [path.name for path in listing(self.environments) if (path / ".complete").exists()]

    def in_use(self) -> set[str]:
        """Return the releases that something needs: a link, or a process that began in one."""
        links = [self.root / "current", self.root / "previous"]
        used = {target(path) for path in (*links, *listing(self.instances))}
        for process in Path("/proc").glob("[0-9]*/cwd"):
            try:
                folder = Path(os.readlink(process))
            except OSError:
                continue  # it has ended
            if folder.is_relative_to(self.releases):
                used |= set(folder.relative_to(self.releases).parts[:1])
        return used - {""}

    def obsolete(self, keep: int, release: str = "", environment: str = "") -> list[Path]:
        """Return all but the last `keep` releases, those in use, and the environments of these."""
        kept = self.in_use() | {release} - {""}
        releases = self.newest_first()
        for path in releases:
            if len(kept) < keep and not path.name.startswith("."):
                kept.add(path.name)
        used = {environment} | {environment_of(self.releases / name) for name in kept}
        gone = [path for path in releases if path.name not in kept]
        return gone + [path for path in listing(self.environments) if path.name not in used]

    def prune(self, keep: int) -> list[str]:
        """Remove what may go, and return it."""
        gone = self.obsolete(keep)
        for path in gone:
            remove(path)
        return [str(path.relative_to(self.root)) for path in gone]

    def discard(self, release: str) -> bool:
        """Remove a release that never served; say whether it did that."""
        path = self.releases / release
        served = any(entry["release"] == release for entry in self.history())
        if not release or served or release in self.in_use() or not path.is_dir():
            return False
        remove(path)
        return True


def target(path: Path) -> str:
    """Return the name of what a link points to; empty when there is no link."""
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def link(path: Path, to: str) -> None:
    """Point a link elsewhere in one step."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(to)
    new.replace(path)


def point(path: Path, release: str) -> None:
    """Point a link in the app's folder to a release, or remove it where there is none."""
    if release:
        link(path, f"releases/{release}")
    else:
        path.unlink(missing_ok=True)


def replace(path: Path, text: str) -> None:
    """Write a file in one step."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def parsed(line: str) -> dict[str, str]:
    """Return a line of the history; empty when it was cut."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def remove(path: Path) -> None:
    """Remove a file, or a folder: under another name first, so that nobody takes half of it."""
    if path.is_dir() and not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}.gone"))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def environment_of(release: Path) -> str:
    """Return the name of a release's environment."""
    return target(release / ".venv")


def listing(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing when there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []
