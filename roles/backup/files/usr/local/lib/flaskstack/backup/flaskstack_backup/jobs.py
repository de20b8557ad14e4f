"""Jobs that back up: dumps, binary logs, queue and files; retention and checks."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flaskstack_backup.logs import log_created
from flaskstack_backup.processes import BackupError, lock, run
from flaskstack_backup.servers import Server
from flaskstack_backup.store import Store, expired, of, select_backup

POSITION = re.compile(rb"(?:MASTER|SOURCE)_LOG_FILE='([^']+)', (?:MASTER|SOURCE)_LOG_POS=(\d+)")
PARTS = ("database", "queue", "files")


class Backup:
    """The backups of an app on a host, as configured by the role."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take the settings of the role."""
        self.settings = SimpleNamespace(**settings)
        self.state = Path(settings["state"])
        self.store = Store(settings)
        self.database = settings["database"]

    @property
    def server(self) -> Server:
        """The real database server."""
        return Server(self.database["socket"])

    # State between runs.

    def read(self, name: str) -> dict[str, Any]:
        """Return a recorded state."""
        path = self.state / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def record(self, name: str, **values: Any) -> None:
        """Record a state."""
        path = self.state / f"{name}.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.read(name) | values))
        new.replace(path)

    def lineage(self, logs: list[tuple[str, int]]) -> str:
        """Return the ID of the series of binary logs; a new server begins a new series."""
        state = self.read("binlog")
        sizes = dict(logs)
        known = state.get("log") in sizes and sizes[state["log"]] >= state["size"]
        lineage = state["lineage"] if known else secrets.token_hex(4)
        self.record("binlog", lineage=lineage, log=logs[-1][0], size=logs[-1][1])
        return lineage

    def claim(self) -> dict[str, Any]:
        """Record that this server continues the backups in the store."""
        self.record("claimed", at=time.time())
        return {}

    def require_claim(self) -> None:
        """Refuse to back up a new server until it has restored the backups of the previous one.

        Otherwise a backup of its empty database would be the newest one.
        """
        if not self.read("claimed"):
            if of(self.store.snapshots(), "manifest"):
                raise BackupError(
                    f"The store has backups of {self.settings.host} from before this server. "
                    "Restore them (playbooks/restore.yml). If they are not needed, run "
                    "playbooks/backup.yml -e confirm=yes"
                )
            self.claim()

    # Backing up.

    def run(self) -> dict[str, Any]:
        """Make a backup; return its manifest."""
        self.require_claim()
        start = time.time()
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(start))
        manifest: dict[str, Any] = {"run": name, "at": start, "host": self.settings.host}
        manifest |= {"app": self.settings.app, "secrets": self.settings.secrets, "size": 0}
        if self.database:
            manifest |= self.save_database(name)
        if self.settings.queue:
            self.save_part(manifest, "queue", self.save_queue())
        if paths := [path for path in self.settings.files if os.path.exists(path)]:
            self.save_part(manifest, "files", paths)
        manifest["seconds"] = round(time.time() - start, 1)
        tags = ["manifest", f"run={name}", f"at={manifest['at']}", f"size={manifest['size']}"]
        tags += [f"seconds={manifest['seconds']}", f"parts={'+'.join(parts_of(manifest))}"]
        tags += [f"lineage={manifest['lineage']}"] if self.database else []
        text = json.dumps(manifest, indent=1)
        stdin = ["--stdin", "--stdin-filename", "manifest.json"]
        self.store.save(tags, *stdin, input=text)
        if self.settings.prune:
            self.prune()
        return manifest

    def save_database(self, name: str) -> dict[str, Any]:
        """Dump the database into the store; return what a restore needs."""
        server, database = self.server, self.database["name"]
        tags = ["database", f"run={name}"]
        with lock(self.state / "binlog.lock"):
            lineage = self.lineage(server.logs())
        for _ in range(3):
            objects = server.objects(database)
            done = self.store.save_dump(server.dump(database, position=True), [*tags])
            if objects == server.objects(database):
                break
        else:
            raise BackupError("The database changes its tables, so that no dump is consistent")
        found = POSITION.search(done.head)
        if not found:
            raise BackupError("The dump has no position in the binary log. Is log_bin on?")
        log = found[1].decode()
        # `at` is later than the dump's data, so that an earlier moment takes an earlier backup.
        manifest = {"database": done.summary["snapshot_id"], "name": database, "at": done.at}
        manifest |= {"objects": objects, "collation": server.collation(database)}
        manifest |= {"definers": sorted(server.definers(database))}
        manifest |= {"log": log, "position": int(found[2]), "lineage": lineage}
        manifest |= {"log_created": log_created(server.log_folder() / log), "size": done.size}
        return manifest | {"version": server.query("SELECT VERSION()")[0][0]}

    def save_part(self, manifest: dict[str, Any], part: str, paths: list[str]) -> None:
        """Create a snapshot of files."""
        done = self.store.save([part, f"run={manifest['run']}"], *paths)
        manifest |= {part: done["snapshot_id"], f"{part}_paths": paths}
        manifest["size"] += done["total_bytes_processed"]

    def save_queue(self) -> list[str]:
        """Return the path of a new RDB file of the queue."""
        queue, path = self.settings.queue, self.state / "queue.rdb"
        password = Path(queue["password_file"]).read_text().strip()
        login = ["-s", queue["socket"], "--user", queue["user"]]
        run("redis-cli", *login, "--rdb", str(path), env=os.environ | {"REDISCLI_AUTH": password})
        if path.read_bytes()[:5] != b"REDIS":
            raise BackupError("redis-cli wrote no RDB file of the queue")
        return [str(path)]

    def ship(self) -> dict[str, Any]:
        """Copy the binary logs to the store if they have changed."""
        server = self.server
        with lock(self.state / "binlog.lock"):
            logs = server.logs()
            position = f"{logs[-1][0]}:{logs[-1][1]}"
            lineage = self.lineage(logs)
            if self.read("binlog").get("shipped") == position:
                return {"position": position, "size": 0}
            folder = server.log_folder()
            tags = ["binlog", f"lineage={lineage}", f"last={position}"]
            done = self.store.save(tags, *(str(folder / log) for log, _ in logs))
            self.record("binlog", shipped=position)
        return {"position": position, "size": done["data_added"]}

    def prune(self) -> None:
        """Remove expired backups, and after a day those without a manifest."""
        self.store.call("unlock")  # of processes that were killed
        manifests, others = expired(self.store.snapshots(), self.settings.keep, time.time())
        self.store.forget(manifests)  # first, since a backup with a manifest is complete
        self.store.forget(others)
        self.store.call("prune", "--max-repack-size=1G")

    # Checking.

    def check(self) -> dict[str, Any]:
        """Verify the repository, some of its data, and the age of the newest backup."""
        newest = select_backup(self.store.snapshots(), None)
        age = time.time() - float(newest.tags["at"]) if newest else None
        if age is None or age > self.settings.max_age * 3600:
            since = f"is {age / 3600:.0f} hours old" if newest else "does not exist"
            raise BackupError(f"The newest backup {since}")
        self.store.call("check", f"--read-data-subset={self.settings.check_data}")
        return {"age": age}


def parts_of(manifest: dict[str, Any]) -> list[str]:
    """Return the parts of a backup."""
    return [part for part in PARTS if part in manifest]
