"""Restores and drills: the database at a moment, the queue and the files."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from flaskstack_backup.jobs import PARTS, Backup
from flaskstack_backup.logs import cut, log_created, log_names
from flaskstack_backup.processes import BackupError, run
from flaskstack_backup.servers import ROOT, PrivateServer, Server
from flaskstack_backup.store import Snapshot, of, select_backup, select_logs


class Restore(Backup):
    """Restores of an app's backups on a host."""

    def drill(self) -> dict[str, Any]:
        """Restore the newest backup into a private server, run the app's checks, and clean up."""
        start = time.time()
        backup = self.find(None)
        manifest = self.manifest(backup)
        report: dict[str, Any] = {"run": manifest["run"], "age": round(start - manifest["at"])}
        if self.database:
            with self.restored(backup, None) as (private, end):
                checks = self.run_checks(private)
                report |= {"end": end, "checks": checks, "objects": manifest["objects"]}
        if "queue" in manifest:
            with self.queue_file(manifest):
                report["queue"] = "readable"
        return report | {"seconds": round(time.time() - start, 1), "size": manifest["size"]}

    def run_checks(self, server: Server) -> int:
        """Run the app's queries; each must return a first value other than 0 or NULL."""
        name = self.database["name"]
        for query in self.settings.checks:
            rows = server.query(f"USE `{name}`; {query}")
            if not rows or rows[0][0] in ("0", "NULL", ""):
                raise BackupError(f"The restored database fails this check: {query}")
        return len(self.settings.checks)

    # Restoring.

    def find(self, moment: float | None) -> Snapshot:
        """Return the manifest of the backup for a moment."""
        backup = select_backup(self.store.snapshots(), moment)
        if not backup:
            before = f" from before {clock(moment)}" if moment else ""
            raise BackupError(f"The store has no backup of {self.settings.host}{before}")
        return backup

    def manifest(self, backup: Snapshot) -> dict[str, Any]:
        """Return the content of a manifest."""
        return json.loads(self.store.call("dump", backup.id, "/manifest.json"))

    def list(self) -> list[dict[str, Any]]:
        """Return the backups, oldest first, and until when binary logs extend them."""
        snapshots, found = self.store.snapshots(), []
        for one in of(snapshots, "manifest"):
            furthest = select_logs(snapshots, one, None)
            start = float(one.tags["at"])
            entry = {"run": one.tags["run"], "from": start, "age": round(time.time() - start)}
            entry |= {"size": int(one.tags["size"]), "seconds": float(one.tags["seconds"])}
            entry |= {"parts": one.tags["parts"].split("+"), "to": start}
            found.append(entry | ({"to": furthest.time} if furthest else {}))
        return found

    @contextmanager
    def restored(
        self, backup: Snapshot, moment: float | None
    ) -> Iterator[tuple[PrivateServer, dict[str, Any]]]:
        """Give a private server with the database at a moment, and its last transaction."""
        manifest, name = self.manifest(backup), self.database["name"]
        folder = self.state / "restore"
        if not self.server.mariadb:  # AppArmor allows Ubuntu's MySQL only some directories
            folder = Path(f"/var/lib/mysql-files/{self.settings.app}-restore")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        private = PrivateServer(folder, self.settings.restore_memory, self.database["user"])
        try:
            private.start(name)
            private.create_definers(name, {*manifest["definers"], *self.accounts(self.server)})
            dump = [*self.store.arguments, "dump", manifest["database"], "/database.sql"]
            private.load(dump, name, self.store.environment)
            private.query(f"ALTER DATABASE `{name}` COLLATE {manifest['collation']}")
            if private.objects(name) != manifest["objects"]:
                raise BackupError(
                    f"The dump has {private.objects(name)} tables, triggers, routines and events, "
                    f"but the database had {manifest['objects']}"
                )
            end = self.apply_logs(private, backup, manifest, moment)
            yield private, end
        finally:
            private.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def apply_logs(
        self, private: PrivateServer, backup: Snapshot, manifest: dict[str, Any], moment: Any
    ) -> dict[str, Any]:
        """Apply the binary logs up to a moment; return the last transaction."""
        last = {"transaction": "", "time": manifest["at"], "log": manifest["log"]}
        last["position"] = manifest["position"]
        snapshot = select_logs(self.store.snapshots(), backup, moment)
        if not snapshot:
            return last
        folder = private.folder / "logs"
        names = log_names(manifest["log"], snapshot.tags["last"].partition(":")[0])
        include = [f"--include={name}" for name in names]
        self.store.call("restore", snapshot.id, "--target", str(folder), *include)
        logs = sorted(path for path in folder.rglob("*.[0-9]*") if path.is_file())
        if [path.name for path in logs] != names or log_created(logs[0]) != manifest["log_created"]:
            raise BackupError(f"The store has no binary log {manifest['log']} of this backup")
        end = cut(logs, manifest["position"], moment)
        private.apply(logs, manifest["position"])
        private.enable_events(manifest["name"])
        return last | {name: value for name, value in end.items() if value}

    def restore(
        self, moment: float | None, target: str, parts: list[str], apply: bool
    ) -> dict[str, Any]:
        """Return what a restore would do, or do it: to a moment, in place or into `target`."""
        backup = self.find(moment)
        manifest = self.manifest(backup)
        is_new = self.settings.is_own and not self.read("claimed")
        parts = parts or ([*PARTS] if is_new and not target else ["database"])
        parts = [part for part in parts if part in manifest]
        report: dict[str, Any] = {"run": manifest["run"], "from": manifest["at"], "parts": parts}
        report |= {"overwrites": []}
        if "database" in parts:
            name = target or self.database["name"]
            report |= {"database": name}
            if self.server.exists(name):
                tables = self.server.objects(name)[0]
                report["overwrites"].append(f"database {name} with {tables} tables and views")
        if "files" in parts and not target:
            report["overwrites"] += filter(os.path.exists, manifest["files_paths"])
        if "queue" in parts and not target:
            report["overwrites"].append("the jobs in the queue")
        if not apply:
            return report
        start = time.time()
        if "database" in parts:
            report["end"] = self.restore_database(backup, moment, target)
        if "files" in parts:
            self.restore_files(manifest, target)
        if "queue" in parts and not target:
            self.restore_queue(manifest)
        if self.settings.is_own and not target:
            self.claim()
        return report | {"seconds": round(time.time() - start, 1)}

    def restore_database(self, backup: Snapshot, moment: Any, target: str) -> dict[str, Any]:
        """Restore the database; the app's accounts are locked while it is replaced."""
        name, server = self.database["name"], self.server
        if self.settings.is_own:
            self.ship()  # so that the present state can be restored later
        with self.restored(backup, moment) as (private, end):
            self.run_checks(private)
            accounts = [] if target not in ("", name) else self.accounts(server)
            # After a failure the accounts stay locked, since the database is incomplete.
            for account in accounts:
                server.query(f"ALTER USER {account} ACCOUNT LOCK")
            self.disconnect(server, accounts)
            target = target or name
            same = target == name
            dump = self.dump_for(server, private) if same else private.dump_as(name, target)
            server.load(dump, target)
            server.query(f"ALTER DATABASE `{target}` COLLATE {private.collation(name)}")
            count = 4 if same else 3  # without events
            if server.objects(target)[:count] != private.objects(name)[:count]:
                raise BackupError(f"The database {target} is incomplete; restore it again")
            for account in accounts:
                server.query(f"ALTER USER {account} ACCOUNT UNLOCK")
        return end

    def dump_for(self, server: Server, private: PrivateServer) -> list[str]:
        """Return the command that dumps the restored database for the real server.

        An account of the migrations replaces definers that this server does not have.
        """
        name, accounts = self.database["name"], server.accounts()
        owner = next(filter(self.is_owner, sorted(accounts)), ROOT)
        return private.dump_with_definers(name, private.definers(name) - accounts, owner)

    def is_owner(self, account: str) -> bool:
        """Return whether an account is one of the migrations."""
        return account.startswith(f"`{self.database['owner']}`@")

    def accounts(self, server: Server) -> list[str]:
        """Return the app's accounts."""
        users = self.database["users"]
        return [one for one in sorted(server.accounts()) if one.split("`")[1] in users]

    def disconnect(self, server: Server, accounts: list[str]) -> None:
        """Close the connections of accounts."""
        users = {account.split("`")[1] for account in accounts}
        for row in server.query("SHOW PROCESSLIST"):
            if row[1] in users:
                with suppress(BackupError):  # it has ended
                    server.query(f"KILL {row[0]}")

    def restore_files(self, manifest: dict[str, Any], target: str) -> None:
        """Restore files as the app's user, in place or below `restored/<target>`."""
        folder = self.state / "restored" / (target or "in-place")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self.store.call("restore", manifest["files"], "--target", str(folder))
        if target:
            return
        user = pwd.getpwnam(self.settings.files_user)
        # The app owns the target and may have put links there, so nothing is written as root.
        paths = [path.lstrip("/") for path in manifest["files_paths"]]
        pack = subprocess.Popen(["tar", "-C", folder, "-c", *paths], stdout=subprocess.PIPE)
        unpack = ["tar", "-C", "/", "--no-same-owner", "--no-overwrite-dir", "-xp"]
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        done = subprocess.run(unpack, stdin=pack.stdout, check=False, **identity)
        if done.returncode or pack.wait():
            raise BackupError(f"Some files were not restored; all are in {folder}")
        shutil.rmtree(folder)

    def restore_queue(self, manifest: dict[str, Any]) -> None:
        """Replace the data of the queue; the previous append-only files stay beside them."""
        queue, folder = self.settings.queue, Path(self.settings.queue["data"])
        current, base = folder / "appendonlydir", "appendonly.aof.1.base.rdb"
        with self.queue_file(manifest) as file:
            run("systemctl", "stop", queue["unit"])
            if current.exists():
                current.rename(folder / f"appendonlydir.{int(time.time())}")
            current.mkdir(mode=0o700)
            shutil.copy(file, current / base)
        (current / "appendonly.aof.manifest").write_text(f"file {base} seq 1 type b\n")
        for path in (current, *current.iterdir()):
            shutil.chown(path, queue["owner"], queue["owner"])
        run("systemctl", "start", queue["unit"])

    @contextmanager
    def queue_file(self, manifest: dict[str, Any]) -> Iterator[Path]:
        """Give the RDB file of a backup, after Redis' own check of it."""
        folder = self.state / "restore-queue"
        try:
            self.store.call("restore", manifest["queue"], "--target", str(folder))
            (file,) = folder.rglob("queue.rdb")
            run("redis-check-rdb", str(file))
            yield file
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def moment_of(text: str) -> float | None:
    """Return a moment in seconds since 1970; without an offset it is in the host's time zone."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp() // 1  # the logs have whole seconds
    except ValueError as error:
        raise BackupError(f"{text!r} is no time such as 2026-11-20 14:03:00") from error


def clock(moment: float) -> str:
    """Return a moment for people, with its offset from UTC."""
    return datetime.fromtimestamp(moment).astimezone().isoformat(" ", "seconds")
