"""Database servers: the real one, and a private one for restores."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from flaskstack_backup.processes import BackupError, pump, run

DUMP_OPTIONS = ["--single-transaction", "--quick", "--routines", "--triggers", "--events"]
DUMP_OPTIONS += ["--no-tablespaces", "--max-allowed-packet=1G"]
MARIADB_OPTIONS = ["--dump-history"]  # of system-versioned tables
MYSQL_OPTIONS = ["--set-gtid-purged=OFF", "--column-statistics=0"]
# Errors of statements about accounts and other databases, which the private server lacks.
# The filter --replicate-wild-do-table covers statements about tables.
FOREIGN_ERRORS = "1049,1133,1141,1147,1268,1269,1305,1360,1396,1410,1539,1959,3162,3523"
OBJECTS = """SELECT
 (SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{0}'),
 (SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = '{0}'),
 (SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = '{0}'),
 (SELECT COUNT(*) FROM information_schema.events WHERE event_schema = '{0}')"""

DEFINERS = """SELECT definer FROM information_schema.views WHERE table_schema = '{0}'
 UNION SELECT definer FROM information_schema.triggers WHERE trigger_schema = '{0}'
 UNION SELECT definer FROM information_schema.routines WHERE routine_schema = '{0}'
 UNION SELECT definer FROM information_schema.events WHERE event_schema = '{0}'"""
# How a dump defines views, triggers, events and routines.
DEFINITION = (
    r"^(/\*!50013 |/\*!50003 CREATE\*/ /\*!50017 |/\*!50106 CREATE\*/ /\*!50117 |CREATE )"
    "DEFINER="
)
ANY_DEFINER = "`[^`]+`@`[^`]*`"
ROOT = "`root`@`localhost`"


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
        vendor = MARIADB_OPTIONS if self.mariadb else MYSQL_OPTIONS
        if position:
            vendor = [*vendor, "--master-data=2" if self.mariadb else "--source-data=2"]
        return [*self.dumper, *DUMP_OPTIONS, *vendor, name]

    def dump_as(self, name: str, target: str) -> list[str]:
        """Return the command that dumps a database for another name, without its events.

        Views contain the name of the database, and their definers may have no access to another
        one. Events would run twice.
        """
        dump = [word for word in self.dump(name) if word != "--events"]
        views = rf"/^\/\*!50001 VIEW /s/`{re.escape(name)}`\./`{target}`./g"
        return edited(dump, views, new_definer(ANY_DEFINER, ROOT))

    def dump_with_definers(self, name: str, definers: set[str], owner: str) -> list[str]:
        """Return the command that dumps a database; `owner` replaces `definers`."""
        edits = [new_definer(re.escape(definer), owner) for definer in sorted(definers)]
        return edited(self.dump(name), *edits) if edits else self.dump(name)

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

    def definers(self, name: str) -> set[str]:
        """Return the accounts whose privileges views, triggers, routines and events use."""
        return {account(*row[0].rpartition("@")[::2]) for row in self.query(DEFINERS.format(name))}

    def accounts(self) -> set[str]:
        """Return all accounts."""
        return {account(*row) for row in self.query("SELECT user, host FROM mysql.user")}

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
        options += ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF"]
        options += ["--event-scheduler=OFF"]
        options += [f"--innodb-buffer-pool-size={self.memory}M", "--performance-schema=OFF"]
        options += ["--max-allowed-packet=1G", "--character-set-server=utf8mb4"]
        options += ["--relay-log=relay"]
        if self.mariadb:
            options += ["--skip-slave-start", "--slave-max-allowed-packet=1G"]
            options += [f"--slave-skip-errors={FOREIGN_ERRORS}"]
        else:
            options += ["--skip-replica-start", "--replica-max-allowed-packet=1G", "--mysqlx=OFF"]
            options += [f"--replica-skip-errors={FOREIGN_ERRORS}", "--replica-parallel-workers=1"]
        options += [f"--replicate-wild-do-table={database.replace('_', chr(92) + '_')}.%"]
        program = "mariadbd" if self.mariadb else "mysqld"
        self.process = subprocess.Popen([program, "--no-defaults", *own, *options])
        self.wait()

    def create_definers(self, database: str, definers: set[str]) -> None:
        """Create accounts of definers: a view on a view requires the privileges of both."""
        for definer in sorted(definers - {ROOT}):
            self.query(
                f"CREATE USER IF NOT EXISTS {definer}; GRANT ALL ON `{database}`.* TO {definer}"
            )

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
        while "read all relay log" not in (status := self.status()) or self.is_applying():
            if error := re.search(r"Last_SQL_Error: (\S.*)", status):
                raise BackupError(f"The binary logs cannot be applied: {error[1]}")
            time.sleep(0.2)
        self.query("STOP REPLICA")

    def status(self) -> str:
        """Return the status of the replica."""
        return run(*self.client, "--vertical", "--execute", "SHOW REPLICA STATUS")

    def is_applying(self) -> bool:
        """Return whether MySQL's worker is behind the thread that reads the logs."""
        if self.mariadb:  # has a single thread
            return False
        threads = [row[6] for row in self.query("SHOW PROCESSLIST") if row[1] == "system user"]
        idle = "read all relay log|Waiting for an event from Coordinator"
        return not all(re.search(idle, state) for state in threads)

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


def account(user: str, host: str) -> str:
    """Return an account as dumps write it."""
    return f"`{user}`@`{host}`"


def new_definer(pattern: str, owner: str) -> str:
    """Return the edit that replaces the definers that match."""
    return rf"s~{DEFINITION}{pattern}~\1DEFINER={owner}~"


def edited(dump: list[str], *edits: str) -> list[str]:
    """Return the command that edits a dump line by line."""
    expressions = [word for edit in edits for word in ("-e", edit)]
    return ["sh", "-c", f"{shlex.join(dump)} | {shlex.join(['sed', '-E', *expressions])}"]
