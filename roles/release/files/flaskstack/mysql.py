"""Lock, dump and load an app's database with the command-line tools of MySQL or MariaDB.

The tools are on each host for dumps. A driver such as PyMySQL would be one more package.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

END = "flaskstack-end-of-rows"
# Dump everything of the app that an account without PROCESS may read. Without --hex-blob, rows are
# escaped as drivers escape them, so the statements fit into max_allowed_packet when restored.
DUMP_OPTIONS = ["--single-transaction", "--quick", "--routines", "--triggers", "--events"]
DUMP_OPTIONS += ["--no-tablespaces", "--max-allowed-packet=1G"]
LOOPBACK = ("127.0.0.1", "localhost")  # certificates are not verified here
ROOT = {"host": "", "user": "root", "password": ""}  # through the socket, without a password
SANDBOX = re.compile(rb"/\*M?!999999")
# Options of one vendor's tool. The history is that of system-versioned tables.
VENDOR_OPTIONS = {
    "mysqldump": ["--set-gtid-purged=OFF", "--column-statistics=0"],
    "mariadb-dump": ["--dump-history"],
}
RESERVE = 256 << 20  # bytes that a dump leaves free on its disk


class DatabaseError(Exception):
    """A database tool failed."""


def find_tools() -> tuple[str, str]:
    """Return client and dump tool of the same vendor; empty when they are missing."""
    for client, dumper in (("mariadb", "mariadb-dump"), ("mysql", "mysqldump")):
        if found := shutil.which(client):
            return found, shutil.which(dumper) or ""
    return "", ""


def option_file(database: dict[str, Any], client: str) -> str:
    """Return an option file for the login, in the vendor's syntax."""
    lines = {"user": database["user"], "password": database["password"]}
    mariadb = os.path.basename(client) == "mariadb"
    if database.get("host"):
        lines |= {"host": database["host"], "port": database["port"], "protocol": "TCP"}
        if mariadb and database["host"] in LOOPBACK:
            lines |= {"ssl-verify-server-cert": "0"}
        if database.get("ca"):
            strict = ("ssl-verify-server-cert", "1") if mariadb else ("ssl-mode", "VERIFY_IDENTITY")
            lines |= {"ssl-ca": database["ca"], strict[0]: strict[1]}
    else:
        lines |= {"socket": database["socket"]}
    lines |= {"default-character-set": "utf8mb4"}
    return "[client]\n" + "".join(f"{name} = {_quoted(value)}\n" for name, value in lines.items())


def _quoted(value: Any) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


class Session:
    """An open connection, which holds its locks."""

    def __init__(self, client: str, options: int, name: str) -> None:
        """Log in to the database `name`."""
        command = [client, f"--defaults-file=/dev/fd/{options}", "--batch", "--unbuffered"]
        self.process = subprocess.Popen(
            [*command, "--skip-column-names", "--skip-reconnect", f"--database={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[options],
            start_new_session=True,  # it outlives the SSH connection
            text=True,
        )

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement."""
        with suppress(BrokenPipeError):  # the client's error output has the reason
            self.process.stdin.write(f"{statement};\nSELECT '{END}';\n")
            self.process.stdin.flush()
        rows = []
        for line in self.process.stdout:
            if line.rstrip("\n") == END:
                return rows
            rows.append(line.rstrip("\n").split("\t"))
        raise DatabaseError(self.process.stderr.read().strip() or "the connection is closed")

    def close(self) -> None:
        """Close the connection, which releases its locks."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def take_lock(session: Session, name: str) -> str:
    """Acquire a named lock for the session; return its holder if it is not free."""
    session.query("SET SESSION wait_timeout = 604800")  # seconds; migrations may take long
    if session.query(f"SELECT GET_LOCK('{name}', 0)") == [["1"]]:
        return ""
    ((holder,),) = session.query(f"SELECT IS_USED_LOCK('{name}')")
    # An account sees only its own connections, and migrations have a separate account.
    for row in session.query("SHOW PROCESSLIST"):
        if row[0] == holder:
            return f"{row[1]} from {row[2]} (connection {holder}), for {row[5]} seconds"
    return f"connection {holder} of the server"


def count_tables(session: Session, name: str) -> tuple[int, int]:
    """Return the number of tables and views of a database, and the bytes of its rows."""
    if session.query("SHOW VARIABLES LIKE 'information_schema_stats_expiry'"):  # MySQL's cache
        session.query("SET SESSION information_schema_stats_expiry = 0")
    columns = "COUNT(*), COALESCE(SUM(data_length), 0)"
    where = f"information_schema.tables WHERE table_schema = '{name}'"
    tables, size = session.query(f"SELECT {columns} FROM {where}")[0]
    return int(tables), int(size)


def check_room(folder: Path, size: int) -> None:
    """Raise DatabaseError unless a dump of `size` bytes of rows fits into the folder.

    A dump is compressed. It is expected to be at most twice as large as the newest one.
    """
    dumps = [path.stat() for path in folder.glob("*.sql.gz")]
    newest = max(dumps, key=lambda dump: dump.st_mtime, default=None)
    need = min(size, 2 * newest.st_size) if newest else size
    free = shutil.disk_usage(folder).free
    if free < need + RESERVE:
        needed = f"{(need + RESERVE) >> 20} MiB for a dump"
        raise DatabaseError(f"{folder} has {free >> 20} MiB free, which is less than {needed}")


def write_dump(dumper: str, options: int, name: str, path: Path) -> None:
    """Dump the database to a compressed file, atomically."""
    command = [dumper, f"--defaults-file=/dev/fd/{options}", *DUMP_OPTIONS]
    command += VENDOR_OPTIONS[os.path.basename(dumper)]
    partial = path.with_name(f".{path.name}")
    try:
        with (
            tempfile.TemporaryFile(mode="w+") as errors,
            subprocess.Popen(
                [*command, name], stdout=subprocess.PIPE, stderr=errors, pass_fds=[options]
            ) as process,
        ):
            last = _compress(process.stdout, partial)
            if process.wait() or b"-- Dump completed" not in last:
                errors.seek(0)
                # It reports no reason when the server has closed an idle connection.
                ended = (
                    f"it ended with code {process.returncode}; mysql_wait_timeout may be too short"
                )
                reason = errors.read().strip() or ended
                raise DatabaseError(f"{os.path.basename(dumper)}: {reason}")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _compress(source: Any, path: Path) -> bytes:
    """Compress output into a file, flush it to disk, and return the end of the output.

    MariaDB's first line, which enables its client's sandbox, is dropped: older clients and MySQL's
    fail on it.
    """
    last, first = b"", source.readline()
    if SANDBOX.match(first):
        first = b""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw) as packed:
            packed.write(first)
            while block := source.read(1 << 20):
                if shutil.disk_usage(path.parent).free < RESERVE:
                    raise DatabaseError(f"{path.parent} has less than {RESERVE >> 20} MiB free")
                packed.write(block)
                last = (last + block)[-200:]
        raw.flush()
        os.fsync(raw.fileno())
    return last
