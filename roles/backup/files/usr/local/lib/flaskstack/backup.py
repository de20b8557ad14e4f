# Ansible managed (role backup of Flaskstack)
"""Back up an app's database, queue and files with restic, and restore them.

    backup.py SETTINGS init              create the repository, unless it exists
    backup.py SETTINGS run               make a backup, and remove expired ones
    backup.py SETTINGS ship              copy new binary logs to the store
    backup.py SETTINGS check             verify the repository and the age of the newest backup
    backup.py SETTINGS drill             restore the newest backup privately, and check it
    backup.py SETTINGS list              print the backups as JSON
    backup.py SETTINGS restore …         print what a restore would do, or do it with --apply
    backup.py SETTINGS report JOB        write the metrics, and log the reason of a failure

A backup is a set of restic snapshots with the same tag `run=…`: database, queue, files and, last, a
manifest. Only a set with a manifest counts. Snapshots of binary logs have the tag `binlog`; each
contains all logs that the server keeps. A database is restored in a private server without network:
it loads the dump, applies the binary logs as a replica does, and stops before the first transaction
of the given moment. The result is checked before it is copied to the real server.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BLOCK = 1 << 20
DUMP_OPTIONS = ["--single-transaction", "--quick", "--routines", "--triggers", "--events"]
DUMP_OPTIONS += ["--no-tablespaces", "--max-allowed-packet=1G"]
MYSQL_OPTIONS = ["--set-gtid-purged=OFF", "--column-statistics=0"]  # MariaDB's tool lacks these
DUMP_END = b"-- Dump completed"
POSITION = re.compile(rb"(?:MASTER|SOURCE)_LOG_FILE='([^']+)', (?:MASTER|SOURCE)_LOG_POS=(\d+)")
LOCKED = "already locked"
RESTIC_INCOMPLETE = 3
LOCK_TIMEOUT = 900  # seconds to wait for another restic, such as a prune
# Types of events in a binary log that belong to no transaction: STOP, ROTATE, FORMAT_DESCRIPTION,
# HEARTBEAT, PREVIOUS_GTIDS, and MariaDB's BINLOG_CHECKPOINT, GTID_LIST and START_ENCRYPTION.
NO_TRANSACTION = {3, 4, 15, 27, 35, 161, 163, 164}
QUERY, XID, GTID_MYSQL, GTID_ANONYMOUS, GTID_MARIADB = 2, 16, 33, 34, 162
EVENT_HEADER = struct.Struct("<IBIIIH")  # time, type, server, length, next position, flags
PARTS = ("database", "queue", "files")
# Errors of statements about accounts and other databases, which the private server lacks.
# The filter --replicate-wild-do-table covers statements about tables.
FOREIGN_ERRORS = "1049,1133,1141,1147,1268,1269,1305,1360,1396,1410,1539,1959,3162,3523"
JOBS = ("run", "ship", "check", "drill")
METRICS = {
    "last_success_timestamp_seconds": "Last success of the job.",
    "failed": "1 if the last run of the job failed.",
    "duration_seconds": "Duration of the last success of the job.",
    "size_bytes": "Size of the data that the last success of the job read.",
}
OBJECTS = """SELECT
 (SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{0}'),
 (SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = '{0}'),
 (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = '{0}'),
 (SELECT COUNT(*) FROM information_schema.events WHERE event_schema = '{0}')"""


class BackupError(Exception):
    """A failure that the operator reads in the journal and in the play."""


# Processes.


def run(*command: str, vanished: bool = False, **options: Any) -> str:
    """Run a command and return its output.

    With `vanished`, restic may miss files that were removed while it ran.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode == RESTIC_INCOMPLETE and vanished:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        if all(re.search('"Err":2[,}]|no such file|at least one', line) for line in errors):
            return done.stdout
    if done.returncode:
        reason = done.stderr.strip() or f"it ended with code {done.returncode}"
        raise BackupError(f"{Path(command[0]).name}: {reason}")
    return done.stdout


def pump(source: list[str], sink: list[str], first: bytes = b"", **env: Any) -> Any:
    """Copy a dump between two processes; return its head, when that came, its size, the output.

    The sink is killed before it sees the end of an incomplete dump, so that restic creates no
    snapshot of it.
    """
    done = SimpleNamespace(head=b"", at=0.0, size=0, output="")
    last = b""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        ended(
            subprocess.Popen(source, stdout=subprocess.PIPE, env=env.get("source_env"))
        ) as reader,
        ended(subprocess.Popen(sink, env=env.get("sink_env"), **pipes)) as writer,
    ):
        with suppress(BrokenPipeError):
            writer.stdin.write(first)
            while block := reader.stdout.read(BLOCK):
                if not done.head:
                    done.head, done.at = block, time.time()
                writer.stdin.write(block)
                last = (last + block)[-200:]
                done.size += len(block)
            if reader.wait() or DUMP_END not in last:
                code = reader.returncode
                raise BackupError(f"{Path(source[0]).name} wrote an incomplete dump (code {code})")
            writer.stdin.close()
        done.output = writer.stdout.read().decode()
        if writer.wait():
            raise BackupError(f"{Path(sink[0]).name} ended with code {writer.returncode}")
    return done


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process, and kill it in the end."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; wait for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# The store.


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

    def initialize(self) -> bool:
        """Create the repository unless it exists; return whether it was created."""
        try:
            self.call("cat", "config")
        except BackupError as error:
            if not re.search("Is there a repository|does not exist|no such file", str(error)):
                raise
            self.call("init", "--repository-version", "2")
            return True
        return False

    def snapshots(self, tag: str) -> list[Snapshot]:
        """Return the snapshots of this host with a tag, oldest first."""
        text = self.call("snapshots", "--json", "--host", self.host, "--tag", tag)
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


def summary(output: str) -> dict[str, Any]:
    """Return the summary in the output of `restic backup --json`."""
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return next(one for one in messages if one.get("message_type") == "summary")


def select_backup(manifests: Iterable[Snapshot], moment: float | None) -> Snapshot | None:
    """Return the newest manifest of a backup whose data are from before a moment."""
    found = [one for one in manifests if moment is None or float(one.tags["at"]) <= moment]
    return max(found, key=lambda one: float(one.tags["at"]), default=None)


def select_logs(logs: Iterable[Snapshot], backup: Snapshot, moment: float | None) -> Any:
    """Return the snapshot of binary logs that reaches from a backup to a moment, or furthest."""
    lineage, start = backup.tags.get("lineage"), float(backup.tags["at"])
    found = [one for one in logs if one.tags["lineage"] == lineage and one.time >= start]
    after = [one for one in found if moment is not None and one.time > moment]
    return min(after, key=lambda one: one.time, default=None) or max(
        found, key=lambda one: one.time, default=None
    )


# Binary logs.


def cut(logs: list[Path], position: int, moment: float | None) -> dict[str, Any]:
    """Truncate copies of binary logs before the first transaction of a moment, or a partial one.

    Replay begins at `position` in the first log. A transaction is of a moment if any of its events
    is. Return the last transaction that stays: its ID, time, log and position.
    """
    last: dict[str, Any] = {"transaction": "", "time": 0, "log": logs[0].name, "position": position}
    for number, path in enumerate(logs):
        done = _scan(path, position if number == 0 else 4, moment)
        last |= done.last
        if done.end is not None:
            os.truncate(path, done.end)
            if done.stopped:
                for later in logs[number + 1 :]:
                    later.unlink()
                del logs[number + 1 :]
                break
    return last


def _scan(path: Path, start: int, moment: float | None) -> Any:
    """Return where to truncate a log (None: nowhere), whether to stop there, and the last ID."""
    last: dict[str, Any] = {}
    pending: dict[str, Any] = {}
    begin, offset, size = start, start, path.stat().st_size
    with path.open("rb") as file:
        while offset + EVENT_HEADER.size <= size:
            file.seek(offset)
            at, kind, server, length, _, _ = EVENT_HEADER.unpack(file.read(EVENT_HEADER.size))
            if length < EVENT_HEADER.size or offset + length > size:
                break  # half written when it was copied
            is_begin = kind in (GTID_MYSQL, GTID_ANONYMOUS, GTID_MARIADB)
            if (is_begin or kind in NO_TRANSACTION) and pending:
                last, pending = pending, {}
            if is_begin or kind in NO_TRANSACTION:
                begin = offset
            if kind not in NO_TRANSACTION:
                if moment is not None and at >= moment:
                    return SimpleNamespace(end=begin, stopped=True, last=last)
                if is_begin:
                    body = file.read(min(length - EVENT_HEADER.size, 64))
                    pending = {"transaction": _transaction(kind, server, body)}
                pending |= {"time": at, "log": path.name, "position": offset + length}
            offset += length
    # The last log of a running server may end within a transaction.
    if pending and _is_complete(path, begin, offset):
        last, begin = pending, offset
    if not pending:
        begin = offset
    return SimpleNamespace(end=begin if begin < size else None, stopped=False, last=last)


def _is_complete(path: Path, begin: int, end: int) -> bool:
    """Return whether the transaction at `begin` ends at `end`: with an XID, COMMIT or DDL."""
    with path.open("rb") as file:
        while begin < end:
            file.seek(begin)
            _, kind, _, length, _, _ = EVENT_HEADER.unpack(file.read(EVENT_HEADER.size))
            body = file.read(length - EVENT_HEADER.size) if kind == QUERY else b""
            begin += length
    return kind == XID or (kind == QUERY and b"BEGIN" not in body[-12:])


def _transaction(kind: int, server: int, body: bytes) -> str:
    if kind == GTID_MARIADB:
        sequence, domain = struct.unpack_from("<QI", body)
        return f"{domain}-{server}-{sequence}"
    if kind == GTID_MYSQL:
        return f"{body[1:17].hex()}:{struct.unpack_from('<Q', body, 17)[0]}"
    return ""


def log_created(path: Path) -> int:
    """Return when a binary log was created, in seconds since 1970."""
    with path.open("rb") as file:
        file.seek(4)
        return EVENT_HEADER.unpack(file.read(EVENT_HEADER.size))[0]


# Database servers.


class Server:
    """A MySQL or MariaDB server, through its socket as root."""

    def __init__(self, socket: str | Path) -> None:
        """Find the tools of the vendor."""
        self.mariadb = bool(shutil.which("mariadbd"))
        self.login = [f"--socket={socket}", "--user=root", "--default-character-set=utf8mb4"]
        names = ("mariadb", "mariadb-dump") if self.mariadb else ("mysql", "mysqldump")
        self.client, self.dumper = ([name, "--no-defaults", *self.login] for name in names)

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement."""
        text = run(*self.client, "--batch", "--skip-column-names", "--execute", statement)
        return [line.split("\t") for line in text.splitlines()]

    def dump(self, name: str, position: bool = False) -> list[str]:
        """Return the command that dumps a database, with its position in the binary log."""
        vendor = [] if self.mariadb else MYSQL_OPTIONS
        if position:
            vendor = [*vendor, "--master-data=2" if self.mariadb else "--source-data=2"]
        return [*self.dumper, *DUMP_OPTIONS, *vendor, name]

    def dump_as(self, name: str, target: str) -> list[str]:
        """Return the command that dumps a database for another name, without its events.

        Views contain the name of the database. Events would run twice.
        """
        dump = [word for word in self.dump(name) if word != "--events"]
        views = rf"/^\/\*!50001 VIEW /s/`{re.escape(name)}`\./`{target}`./g"
        return ["sh", "-c", f"{shlex.join(dump)} | sed {shlex.quote(views)}"]

    def load(self, source: list[str], name: str, environment: Any = None) -> Any:
        """Replace a database by a dump."""
        first = f"DROP DATABASE IF EXISTS `{name}`; CREATE DATABASE `{name}`; USE `{name}`;\n"
        client = [*self.client, "--max-allowed-packet=1G"]
        return pump(source, client, first.encode(), source_env=environment)

    def exists(self, name: str) -> bool:
        """Return whether a database exists."""
        return bool(self.query(f"SHOW DATABASES LIKE '{name.replace('_', chr(92) + '_')}'"))

    def objects(self, name: str) -> list[int]:
        """Return the numbers of tables and views, triggers, routines and events of a database."""
        return [int(number) for number in self.query(OBJECTS.format(name))[0]]

    def collation(self, name: str) -> str:
        """Return the default collation of a database."""
        where = f"FROM information_schema.schemata WHERE schema_name = '{name}'"
        return self.query(f"SELECT default_collation_name {where}")[0][0]

    def logs(self) -> list[tuple[str, int]]:
        """Return the names and sizes of the binary logs, oldest first."""
        return [(row[0], int(row[1])) for row in self.query("SHOW BINARY LOGS")]

    def log_folder(self) -> Path:
        """Return the directory of the binary logs."""
        return Path(self.query("SELECT @@log_bin_basename")[0][0]).parent


class PrivateServer(Server):
    """A server of its own for a restore: a new data directory, no network, no durability."""

    def __init__(self, folder: Path, memory: int, user: str) -> None:
        """Take an empty directory, the MiB of its buffer pool and the system user."""
        super().__init__(folder / "socket")
        self.folder, self.memory, self.user = folder, memory, user
        self.data = folder / "data"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, database: str) -> None:
        """Create the data directory and start the server."""
        self.data.mkdir(mode=0o700)
        for path in (self.folder, self.data):
            shutil.chown(path, self.user)
        own = [f"--datadir={self.data}", f"--user={self.user}"]
        if self.mariadb:
            method = "--auth-root-authentication-method=normal"
            run("mariadb-install-db", "--no-defaults", method, "--skip-test-db", *own)
        else:
            run("mysqld", "--no-defaults", "--initialize-insecure", *own)
        options = [f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"]
        options += [f"--log-error={self.folder}/log", f"--tmpdir={self.folder}"]
        options += ["--skip-networking", "--skip-log-bin", "--server-id=4294967295"]
        options += ["--innodb-flush-log-at-trx-commit=0", "--event-scheduler=OFF"]
        options += [f"--innodb-buffer-pool-size={self.memory}M", "--performance-schema=OFF"]
        options += ["--max-allowed-packet=1G", "--character-set-server=utf8mb4"]
        options += ["--relay-log=relay"]
        if self.mariadb:
            options += ["--skip-slave-start", "--slave-max-allowed-packet=1G"]
            options += [f"--slave-skip-errors={FOREIGN_ERRORS}"]
        else:
            options += ["--skip-replica-start", "--replica-max-allowed-packet=1G", "--mysqlx=OFF"]
            options += [f"--replica-skip-errors={FOREIGN_ERRORS}"]
        options += [f"--replicate-wild-do-table={database.replace('_', chr(92) + '_')}.%"]
        program = "mariadbd" if self.mariadb else "mysqld"
        self.process = subprocess.Popen([program, "--no-defaults", *own, *options])
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        for _ in range(600):
            if self.process.poll() is not None:
                break
            with suppress(BackupError):
                self.query("SELECT 1")
                return
            time.sleep(0.1)
        log = self.folder / "log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        raise BackupError("The private server does not start: " + "; ".join(lines[-3:]))

    def apply(self, logs: list[Path], position: int) -> None:
        """Apply binary logs from a position of the first one, as relay logs."""
        for number, log in enumerate(logs, 1):
            target = self.data / f"relay.{number:06d}"
            log.rename(target)
            shutil.chown(target, self.user)
        names = [f"./relay.{number:06d}\n" for number in range(1, len(logs) + 1)]
        (self.data / "relay.index").write_text("".join(names))
        shutil.chown(self.data / "relay.index", self.user)
        source = "MASTER_HOST" if self.mariadb else "SOURCE_HOST"
        change = "CHANGE MASTER TO" if self.mariadb else "CHANGE REPLICATION SOURCE TO"
        more = ", MASTER_USE_GTID=no" if self.mariadb else ""
        relay = f"RELAY_LOG_FILE='relay.000001', RELAY_LOG_POS={position}"
        self.query(f"{change} {source}='none', {relay}{more}; START REPLICA SQL_THREAD")
        while "read all relay log" not in (status := self.status()):
            if error := re.search(r"Last_SQL_Error: (\S.*)", status):
                raise BackupError(f"The binary logs cannot be applied: {error[1]}")
            time.sleep(0.2)
        self.query("STOP REPLICA")

    def status(self) -> str:
        """Return the status of the replica."""
        return run(*self.client, "--execute", "SHOW REPLICA STATUS\\G")

    def enable_events(self, database: str) -> None:
        """Enable the events that replication created disabled."""
        where = f"event_schema = '{database}' AND status NOT IN ('ENABLED', 'DISABLED')"
        select = f"SELECT event_name FROM information_schema.events WHERE {where}"
        for (name,) in self.query(select):
            self.query(f"ALTER EVENT `{database}`.`{name}` ENABLE")

    def stop(self) -> None:
        """Stop the server."""
        if self.process:
            self.process.kill()
            self.process.wait()


# Jobs.


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

    # Backing up.

    def run(self) -> dict[str, Any]:
        """Make a backup; return its manifest."""
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
        keep = [f"--keep-{period}={count}" for period, count in self.settings.keep.items()]
        self.store.call("unlock")  # of processes that were killed
        ours = ["forget", "--host", self.settings.host, "--group-by", "host"]
        self.store.call(*ours, "--tag", "manifest", *keep, "--keep-within=1d")
        left = {one.tags["run"] for one in self.store.snapshots("manifest")}
        day_ago = time.time() - 86400
        unused = [
            one.id
            for part in PARTS
            for one in self.store.snapshots(part)
            if one.tags["run"] not in left and one.time < day_ago
        ]
        if unused:
            self.store.call("forget", *unused)
        # A snapshot of binary logs contains those of the days before.
        days = f"--keep-daily={self.settings.keep['daily']}"
        self.store.call(*ours, "--tag", "binlog", days, "--keep-last=2")
        self.store.call("prune", "--max-repack-size=1G")

    # Checking.

    def check(self) -> dict[str, Any]:
        """Verify the repository, some of its data, and the age of the newest backup."""
        newest = select_backup(self.store.snapshots("manifest"), None)
        age = time.time() - float(newest.tags["at"]) if newest else None
        if age is None or age > self.settings.max_age * 3600:
            since = f"is {age / 3600:.0f} hours old" if newest else "does not exist"
            raise BackupError(f"The newest backup {since}")
        self.store.call("check", f"--read-data-subset={self.settings.check_data}")
        return {"age": age}

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
        backup = select_backup(self.store.snapshots("manifest"), moment)
        if not backup:
            before = f" from before {clock(moment)}" if moment else ""
            raise BackupError(f"The store has no backup of {self.settings.host}{before}")
        return backup

    def manifest(self, backup: Snapshot) -> dict[str, Any]:
        """Return the content of a manifest."""
        return json.loads(self.store.call("dump", backup.id, "/manifest.json"))

    def list(self) -> list[dict[str, Any]]:
        """Return the backups, oldest first, and until when binary logs extend them."""
        logs = self.store.snapshots("binlog")
        found = []
        for one in self.store.snapshots("manifest"):
            furthest = select_logs(logs, one, None)
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
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        private = PrivateServer(folder, self.settings.restore_memory, self.database["user"])
        try:
            private.start(name)
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
        snapshot = select_logs(self.store.snapshots("binlog"), backup, moment)
        if not snapshot:
            return last
        folder = private.folder / "logs"
        self.store.call("restore", snapshot.id, "--target", str(folder))
        found = sorted(path for path in folder.rglob("*.[0-9]*") if path.is_file())
        logs = [path for path in found if path.name >= manifest["log"]]
        if not logs or log_created(logs[0]) != manifest["log_created"]:
            raise BackupError(f"The store has no binary log {manifest['log']} of this backup")
        end = cut(logs, manifest["position"], moment)
        private.apply(logs, manifest["position"])
        private.enable_events(manifest["name"])
        return last | {name: value for name, value in end.items() if value}

    def restore(
        self, moment: float | None, target: str, parts: list[str], apply: bool
    ) -> dict[str, Any]:
        """Return what a restore would do, or do it: to a moment, in place or beside (`target`)."""
        backup = self.find(moment)
        manifest = self.manifest(backup)
        parts = [part for part in parts if part in manifest]
        report: dict[str, Any] = {"run": manifest["run"], "from": manifest["at"], "parts": parts}
        report |= {"overwrites": []}
        if "database" in parts:
            name = target or self.database["name"]
            report |= {"database": name}
            if self.server.exists(name):
                tables = self.server.objects(name)[0]
                report["overwrites"].append(f"database {name} with {tables} tables")
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
            server.load(private.dump(name) if same else private.dump_as(name, target), target)
            server.query(f"ALTER DATABASE `{target}` COLLATE {private.collation(name)}")
            count = 4 if same else 3  # without events
            if server.objects(target)[:count] != private.objects(name)[:count]:
                raise BackupError(f"The database {target} is incomplete; restore it again")
            for account in accounts:
                server.query(f"ALTER USER {account} ACCOUNT UNLOCK")
        return end

    def accounts(self, server: Server) -> list[str]:
        """Return the app's accounts, quoted."""
        users = ", ".join(f"'{user}'" for user in self.database["users"])
        rows = server.query(f"SELECT user, host FROM mysql.user WHERE user IN ({users})")
        return [f"'{user}'@'{host}'" for user, host in rows]

    def disconnect(self, server: Server, accounts: list[str]) -> None:
        """Close the connections of accounts."""
        users = {account.split("'")[1] for account in accounts}
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

    # Metrics.

    def report(self, job: str) -> None:
        """Log the reason when systemd reports a failure, and write the metrics of all jobs."""
        result = os.environ.get("SERVICE_RESULT", "success")
        self.record(job, failed=int(result != "success"))
        if result != "success":
            reason = self.read(job).get("reason") or f"systemd reports: {result}"
            print(f"<3>Backup job {job} of {self.settings.app} failed. {reason}")
        lines = []
        for name, description in METRICS.items():
            full = f"flaskstack_backup_{name}"
            lines += [f"# HELP {full} {description}", f"# TYPE {full} gauge"]
            for one in JOBS:
                if name in (state := self.read(one)):
                    labels = f'app="{self.settings.app}",job="{one}"'
                    lines.append(f"{full}{{{labels}}} {state[name]}")
        path = Path(self.settings.metrics)
        new = path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.chmod(0o644)
        new.replace(path)


def parts_of(manifest: dict[str, Any]) -> list[str]:
    """Return the parts of a backup."""
    return [part for part in PARTS if part in manifest]


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


def do(backup: Backup, options: argparse.Namespace) -> Any:
    """Run an action and return what to print."""
    if options.action == "restore":
        moment, parts = moment_of(options.to), options.parts.split(",")
        with lock(backup.state / "lock"):
            return backup.restore(moment, options.target, parts, options.apply)
    if options.action == "init":
        return {"changed": backup.store.initialize()}
    if options.action == "list":
        return backup.list()
    if options.action in ("run", "ship") and not backup.settings.is_own:
        raise BackupError(
            f"This host restores the backups of {backup.settings.host}; it makes none"
        )
    start = time.time()
    if options.action == "ship":
        done = backup.ship()
    else:
        with lock(backup.state / "lock"):
            done = getattr(backup, options.action)()
    now = time.time()
    times = {"last_success_timestamp_seconds": int(now), "duration_seconds": round(now - start, 1)}
    size = done.get("size", 0)
    backup.record(options.action, reason="", size_bytes=size, result=done, **times)
    return done


def main() -> int:
    """Run an action; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("action", choices=[*JOBS, "init", "list", "restore", "report"])
    parser.add_argument("job", nargs="?", choices=JOBS, help="for report")
    parser.add_argument("--to", default="", help="moment, such as '2026-11-20 14:03:00'")
    parser.add_argument("--as", dest="target", default="", help="restore beside, as this name")
    parser.add_argument("--parts", default="database", help="of database,files,queue")
    parser.add_argument("--apply", action="store_true")
    options = parser.parse_args()
    os.umask(0o077)
    backup = Backup(json.loads(options.settings.read_text()))
    if options.action == "report":
        backup.report(options.job)
        return 0
    try:
        print(json.dumps(do(backup, options)))
    except BackupError as error:
        backup.record(options.action, reason=str(error))
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
