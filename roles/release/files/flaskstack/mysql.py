"""The database of an app, by the command-line tools of MySQL or MariaDB: its lock and its dump."""

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

END = "flaskstack-end-of-answer"
# What the whole app is, and what an account without the right to PROCESS may ask for. A row is
# written as drivers write it: what came through the server's max_allowed_packet comes back through
# it, which it would not with --hex-blob.
DUMP_OPTIONS = ["--single-transaction", "--quick", "--routines", "--triggers", "--events"]
DUMP_OPTIONS += ["--no-tablespaces", "--max-allowed-packet=1G"]
LOOPBACK = ("127.0.0.1", "localhost")  # where a server shows no certificate that is known
SANDBOX = re.compile(rb"/\*M?!999999")
MYSQL_OPTIONS = ["--set-gtid-purged=OFF", "--column-statistics=0"]  # that MariaDB's has not


class DatabaseError(Exception):
    """What the database's tools had to say."""


def find_tools() -> tuple[str, str]:
    """Return the client and the dumper of one maker; empty when there are none."""
    for client, dumper in (("mariadb", "mariadb-dump"), ("mysql", "mysqldump")):
        if found := shutil.which(client):
            return found, shutil.which(dumper) or ""
    return "", ""


def option_file(database: dict[str, Any], client: str) -> str:
    """Return how to log in, in the words of the maker's option files."""
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
    """A connection that stays open, and with it the lock that it holds."""

    def __init__(self, client: str, options: int, name: str) -> None:
        """Log in to the database `name`."""
        command = [client, f"--defaults-file=/dev/fd/{options}", "--batch", "--unbuffered"]
        self.process = subprocess.Popen(
            [*command, "--skip-column-names", "--skip-reconnect", f"--database={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[options],
            start_new_session=True,  # the end of the SSH connection does not end it
            text=True,
        )

    def ask(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement."""
        with suppress(BrokenPipeError):  # the client says why
            self.process.stdin.write(f"{statement};\nSELECT '{END}';\n")
            self.process.stdin.flush()
        rows = []
        for line in self.process.stdout:
            if line.rstrip("\n") == END:
                return rows
            rows.append(line.rstrip("\n").split("\t"))
        raise DatabaseError(self.process.stderr.read().strip() or "the connection is closed")

    def close(self) -> None:
        """Log out, which gives locks back."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def take_lock(session: Session, name: str) -> str:
    """Take a lock of the server for as long as the session lives; say who has it, if not."""
    session.ask("SET SESSION wait_timeout = 604800")  # seconds; migrations may take their time
    if session.ask(f"SELECT GET_LOCK('{name}', 0)") == [["1"]]:
        return ""
    ((holder,),) = session.ask(f"SELECT IS_USED_LOCK('{name}')")
    # An account sees its own connections, and migrations have an account of their own.
    for row in session.ask("SHOW PROCESSLIST"):
        if row[0] == holder:
            return f"{row[1]} from {row[2]} (connection {holder}), for {row[5]} seconds"
    return f"connection {holder} of the server"


def count_tables(session: Session) -> int:
    """Return how many tables and views the database has."""
    tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"
    return int(session.ask(tables)[0][0])


def write_dump(dumper: str, options: int, name: str, path: Path) -> None:
    """Write all of the database to a compressed file, complete or not at all."""
    command = [dumper, f"--defaults-file=/dev/fd/{options}", *DUMP_OPTIONS]
    if os.path.basename(dumper) == "mysqldump" and _is_mysql(dumper):
        command += MYSQL_OPTIONS
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
                said = errors.read().strip() or f"it ended with code {process.returncode}"
                raise DatabaseError(f"{os.path.basename(dumper)}: {said}")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _is_mysql(dumper: str) -> bool:
    shown = subprocess.run([dumper, "--version"], capture_output=True, text=True, check=False)
    return "mariadb" not in shown.stdout.lower()


def _compress(source: Any, path: Path) -> bytes:
    """Write what comes to a compressed file, on the disk, and return the end of it.

    MariaDB's first line has its client run no programs, and ends older clients and MySQL's.
    """
    last, first = b"", source.readline()
    if SANDBOX.match(first):
        first = b""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "wb") as raw:
        with gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw) as packed:
            packed.write(first)
            while block := source.read(1 << 20):
                packed.write(block)
                last = (last + block)[-200:]
        raw.flush()
        os.fsync(raw.fileno())
    return last
