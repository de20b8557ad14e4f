"""The restic repository: snapshots, which of them a restore needs, and which expire."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flaskstack_backup.processes import BackupError, pump, run

LOCKED = "already locked"
LOCK_TIMEOUT = 900  # seconds to wait for another restic, such as a prune
DAY = 86400
PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}


class Snapshot:
    """A snapshot of restic; its tags `name=value` are in `tags`."""

    def __init__(self, found: dict[str, Any]) -> None:
        """Take an element of `restic snapshots --json`."""
        self.id = found["id"]
        self.tags = dict(tag.partition("=")[::2] for tag in found.get("tags") or [])
        text = re.sub(r"(\.\d{6})\d+", r"\1", found["time"])  # restic has nanoseconds
        self.time = datetime.fromisoformat(text).timestamp()


class Store:
    """A restic repository with the backups of a host."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take the settings: repository (arguments), environment, host, upload_limit."""
        self.arguments = ["restic", *settings["repository"], "--quiet"]
        if settings["upload_limit"]:
            self.arguments.append(f"--limit-upload={settings['upload_limit']}")
        self.host = settings["host"]
        self.environment = os.environ | settings["environment"]
        self.environment["RESTIC_CACHE_DIR"] = f"{settings['state']}/cache"

    def call(self, *arguments: str, **options: Any) -> str:
        """Run a command of restic; wait while the repository is locked by another one."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                return run(*self.arguments, *arguments, env=self.environment, **options)
            except BackupError as error:
                if LOCKED not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(5)

    def initialize(self, is_own: bool) -> bool:
        """Create the repository unless it exists; return whether it was created.

        A host never creates the repository of another one.
        """
        if not is_own:
            self.call("cat", "config")
            return False
        try:
            self.call("init", "--repository-version", "2")
        except BackupError as error:
            if "already" not in str(error):
                raise
            self.call("cat", "config")  # verifies the password
            return False
        return True

    def snapshots(self) -> list[Snapshot]:
        """Return the snapshots of this host, oldest first."""
        text = self.call("snapshots", "--json", "--host", self.host)
        return sorted(map(Snapshot, json.loads(text) or []), key=lambda one: one.time)

    def save(self, tags: list[str], *arguments: str, **options: Any) -> dict[str, Any]:
        """Create a snapshot; return restic's summary."""
        return summary(self.call(*self.saving(tags), *arguments, vanished=True, **options))

    def saving(self, tags: list[str]) -> list[str]:
        """Return the arguments that create a snapshot."""
        return ["backup", "--json", "--host", self.host, "--tag", ",".join(tags)]

    def save_dump(self, dump: list[str], tags: list[str]) -> Any:
        """Create a snapshot of a dump; return its head and size and restic's summary."""
        arguments = [*self.arguments, *self.saving(tags), "--stdin", "--stdin-filename"]
        done = pump(dump, [*arguments, "database.sql"], sink_env=self.environment)
        done.summary = summary(done.output)
        return done

    def forget(self, snapshots: Iterable[Snapshot]) -> None:
        """Remove snapshots."""
        if ids := [one.id for one in snapshots]:
            self.call("forget", *ids)


def summary(output: str) -> dict[str, Any]:
    """Return the summary in the output of `restic backup --json`."""
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return next(one for one in messages if one.get("message_type") == "summary")


def of(snapshots: Iterable[Snapshot], kind: str) -> list[Snapshot]:
    """Return the snapshots of a kind: manifest, database, queue, files or binlog."""
    return [one for one in snapshots if kind in one.tags]


def select_backup(snapshots: Iterable[Snapshot], moment: float | None) -> Snapshot | None:
    """Return the newest manifest of a backup whose data are from before a moment."""
    found = [
        one
        for one in of(snapshots, "manifest")
        if moment is None or float(one.tags["at"]) <= moment
    ]
    return max(found, key=lambda one: float(one.tags["at"]), default=None)


def select_logs(
    snapshots: Iterable[Snapshot], backup: Snapshot, moment: float | None
) -> Snapshot | None:
    """Return the snapshot of binary logs that reaches from a backup to a moment, or furthest."""
    lineage, start = backup.tags.get("lineage"), float(backup.tags["at"])
    logs = [one for one in of(snapshots, "binlog") if one.tags["lineage"] == lineage]
    found = [one for one in logs if one.time >= start]
    after = [one for one in found if moment is not None and one.time > moment]
    return min(after, key=lambda one: one.time, default=None) or max(
        found, key=lambda one: one.time, default=None
    )


def expired(
    snapshots: Iterable[Snapshot], keep: dict[str, int], now: float
) -> tuple[list[Snapshot], list[Snapshot]]:
    """Return the manifests that expire, and the other snapshots that do.

    The newest backup of each of the last days, weeks and months stays, and all backups of 24 hours.
    Parts without a manifest belong to a backup that runs or has failed. Of binary logs, the last
    snapshot of a day contains those of the days before.
    """
    manifests, recent = of(snapshots, "manifest"), now - DAY
    runs = {one.tags["run"] for one in manifests if one.time > recent}
    for period, form in PERIODS.items():
        newest = [*{_date(one, form): one.tags["run"] for one in manifests}.values()]
        runs |= {*newest[::-1][: keep[period]]}
    first = now - (keep["daily"] + 1) * DAY
    logs = [one for one in of(snapshots, "binlog") if one.time > first]
    daily = {(one.tags["lineage"], _date(one, PERIODS["daily"])): one for one in logs}.values()
    old = [one for one in snapshots if one.time <= recent and one not in daily]
    old = [one for one in old if one.tags.get("run") not in runs]
    return of(old, "manifest"), [one for one in old if "manifest" not in one.tags]


def _date(snapshot: Snapshot, form: str) -> str:
    return datetime.fromtimestamp(snapshot.time).strftime(form)
