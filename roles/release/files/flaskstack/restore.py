"""Put a dump of an app's database back, on the database's host."""

from __future__ import annotations

import gzip
import re
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from flaskstack.errors import DeployError, ValidationError
from flaskstack.mysql import (
    ROOT,
    SANDBOX,
    DatabaseError,
    Session,
    check_room,
    count_tables,
    find_tools,
    option_file,
    take_lock,
    write_dump,
)
from flaskstack.run import in_memory

RESTORE = "Restore the dump"
NAME = re.compile(rb"-- Host: .*Database: (.+)\n")
# How a dump defines views, triggers, events and routines. Rows never begin like this.
DEFINER = re.compile(
    rb"^(/\*!50013 |/\*!50003 CREATE\*/ /\*!50017 |/\*!50106 CREATE\*/ /\*!50117 |CREATE )"
    rb"DEFINER=(`(?:[^`]|``)+`@`(?:[^`]|``)*`)"
)
COLLATION = re.compile(rb"(?:COLLATE[ =]|collation_connection *= )([a-z0-9_]+)")
VERSION = re.compile(rb"-- Server version\t(\d+)\.(\d+)")
HISTORY = b"system_versioning_insert_history"
ROWS = (b"INSERT INTO ", b"(")
HEADER = 64 << 10  # bytes of a statement that MariaDB's dump has in a line before the rows


def restore_dump(params: dict[str, Any]) -> dict[str, Any]:
    """Check a dump and, if `confirm` is true, replace the database by it.

    `dump` is a path, or the name of a file in `folder`. `name` is the database, `socket` that of
    the server, `users` the app's accounts and `owner` the one of its migrations, whose dumps are
    on the host `source`.

    The result's `text` is what is overwritten, or was. Raises ValidationError if the dump cannot
    be used, and DeployError if the restore fails.
    """
    folder, name = Path(params["folder"]), params["name"]
    path = folder / params["dump"]
    if not path.is_file():
        dumps = ", ".join(sorted(file.name for file in folder.glob("*.sql.gz"))) or "none"
        elsewhere = f"Copy it from {params['source']}, whose migrations made it"
        raise ValidationError(f"dump: there is no {path}. There are: {dumps}. {elsewhere}")
    client, dumper = find_tools()
    with ExitStack() as stack:
        options = stack.enter_context(in_memory(option_file(params | ROOT, client)))
        session = Session(client, options, "information_schema")
        stack.callback(session.close)
        try:
            accounts = find_accounts(session, name)
            tables, size = count_tables(session, name)
            found = inspect(path)
            check(session, path, name, found)
            definers = missing_definers(found["definers"] - set(accounts))
            if params.get("check") or not params["confirm"]:
                text = f"{path} replaces database {name} with {tables} tables and views"
                return {"changed": False, "text": text + definers}
            before = replace(params, session, (client, dumper, options), accounts, (tables, size))
        except (DatabaseError, OSError) as error:
            raise DeployError(
                RESTORE, f"{error}. Nothing was restored; the maintenance page stays on"
            ) from error
    text = f"{path} has replaced database {name}"
    text += f". Its previous state is in {before}" if before else ""
    return {"changed": True, "text": text + definers}


def find_accounts(session: Session, name: str) -> dict[bytes, str]:
    """Return the accounts that may use a database, as a dump and as a statement writes them."""
    rows = session.query(
        "SELECT grantee FROM information_schema.schema_privileges "
        f"WHERE '{name}' LIKE table_schema UNION SELECT grantee "
        f"FROM information_schema.table_privileges WHERE table_schema = '{name}' UNION SELECT "
        "grantee FROM information_schema.user_privileges WHERE privilege_type = 'SELECT'"
    )
    return {text.replace("'", "`").encode(): text for (text,) in rows}


def inspect(path: Path) -> dict[str, Any]:
    """Read a dump; return what it needs of a server. Raises ValidationError if it is damaged."""
    found: dict[str, Any] = {"name": b"", "definers": set(), "collations": set(), "longest": 0}
    found |= {"version": (), "has_history": False}
    last, length = b"", 0
    try:
        with gzip.open(path) as file:
            for is_begin, line in pieces(file):
                length = len(line) if is_begin else length + len(line)
                found["longest"] = max(found["longest"], length)
                last = line if line.strip() else last
                if not is_begin or line.startswith(ROWS):
                    continue
                if not found["name"] and (name := NAME.match(line)):
                    found["name"] = name[1].strip()
                if version := VERSION.match(line):
                    found["version"] = (int(version[1]), int(version[2]))
                found["has_history"] |= HISTORY in line
                if definer := DEFINER.match(line):
                    found["definers"].add(definer[2])
                found["collations"].update(COLLATION.findall(line))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValidationError(
            f"dump: {path} is damaged, or was not made with gzip: {error}"
        ) from error
    if not last.startswith(b"-- Dump completed"):
        raise ValidationError(f"dump: {path} is incomplete")
    return found


def pieces(file: Any) -> Iterator[tuple[bool, bytes]]:
    """Yield lines, and whether it is the beginning of one: a line with a large row is split."""
    is_begin = True
    while line := file.readline(1 << 20):
        yield is_begin, line
        is_begin = line.endswith(b"\n")


def check(session: Session, path: Path, name: str, found: dict[str, Any]) -> None:
    """Raise ValidationError unless the server can load a dump."""
    if found["name"] != name.encode():
        other = found["name"].decode() or "no single database"
        raise ValidationError(f"dump: {path} is of {other}, and views name their database")
    version = session.query("SELECT @@version")[0][0]
    older = tuple(map(int, version.split(".")[:2])) < found["version"] or "MariaDB" not in version
    if found["has_history"] and older:
        reason = f"has system-versioned tables, whose rows this older server ({version}) rejects"
        raise ValidationError(f"dump: {path} {reason}")
    limit = int(session.query("SELECT @@global.max_allowed_packet")[0][0])
    need = found["longest"] + HEADER
    if need > limit:
        reason = f"mysql_max_allowed_packet: the server accepts rows of {limit >> 20} MiB, and "
        reason += f"{path} has a larger one. Run site.yml after the change"
        raise ValidationError(reason, f"mysql_max_allowed_packet: {(need >> 20) + 1}")
    rows = session.query("SELECT collation_name FROM information_schema.collations")
    known = {row[0].encode() for row in rows} | {b"binary"}
    # MariaDB lists utf8mb4_uca1400_ai_ci without its character set.
    unknown = {
        one for one in found["collations"] if {one, one.partition(b"_")[2]}.isdisjoint(known)
    }
    if unknown:
        listed = ", ".join(sorted(one.decode() for one in unknown))
        raise ValidationError(f"dump: {path} has collations that this server lacks: {listed}")


def missing_definers(definers: set[bytes]) -> str:
    """Return a sentence about definers that have no account."""
    listed = b", ".join(sorted(definers)).decode().replace("`", "")
    views = "views, triggers, events and routines get the account of the migrations"
    return f". No accounts for this database: {listed}. Their {views}" if definers else ""


def replace(
    params: dict[str, Any],
    session: Session,
    tools: tuple[str, str, int],
    accounts: dict[bytes, str],
    present: tuple[int, int],
) -> str:
    """Dump the present state and load the dump; return the path of the dump of that state.

    The app's accounts are locked until the database is complete. `tools` are client, dump tool
    and the descriptor of their options; `present` is the number of tables and their size.
    """
    name, path, before = params["name"], Path(params["folder"], params["dump"]), ""
    if holder := take_lock(session, f"flaskstack_{params['app']}"):
        raise DatabaseError(f"a migration runs: {holder}")
    own = [text for text in accounts.values() if text.split("'")[1] in params["users"]]
    owner = next((key for key in accounts if key.startswith(f"`{params['owner']}`@".encode())), b"")
    if not owner:
        raise DatabaseError(f"the server has no account {params['owner']}, which site.yml creates")
    try:
        for account in own:
            session.query(f"ALTER USER {account} ACCOUNT LOCK")
        for row in session.query("SHOW PROCESSLIST"):
            if row[1] in params["users"]:
                with suppress(DatabaseError):  # it has ended
                    query(tools, f"KILL {row[0]}")
        if present[0]:
            folder = Path(params["folder"])
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = folder / time.strftime("%Y%m%dT%H%M%SZ-before-restore.sql.gz", time.gmtime())
            check_room(folder, present[1])
            write_dump(tools[1], tools[2], name, file)
            before = str(file)
        columns = "default_character_set_name, default_collation_name"
        where = f"information_schema.schemata WHERE schema_name = '{name}'"
        created = f"CREATE DATABASE `{name}`"
        for charset, collation in session.query(f"SELECT {columns} FROM {where}"):
            session.query(f"DROP DATABASE `{name}`")
            created += f" CHARACTER SET {charset} COLLATE {collation}"
        session.query(created)
    except (DatabaseError, OSError):
        for account in own:
            query(tools, f"ALTER USER {account} ACCOUNT UNLOCK")
        raise
    try:
        load(tools, name, path, set(accounts), owner)
    except (DatabaseError, OSError) as error:
        previous = f". The dump of the previous state is {before}" if before else ""
        raise DeployError(
            RESTORE,
            f"{error}. Database {name} is incomplete, so the app's accounts stay locked until a "
            f"restore succeeds{previous}",
        ) from error
    for account in own:
        session.query(f"ALTER USER {account} ACCOUNT UNLOCK")
    return before


def query(tools: tuple[str, str, int], statement: str) -> None:
    """Run a statement in a session of its own, since an error ends a session."""
    session = Session(tools[0], tools[2], "information_schema")
    try:
        session.query(statement)
    finally:
        session.close()


def load(
    tools: tuple[str, str, int], name: str, path: Path, accounts: set[bytes], owner: bytes
) -> None:
    """Load a dump into an empty database. `owner` replaces definers that are no accounts."""

    def known(match: re.Match[bytes]) -> bytes:
        return match[1] + b"DEFINER=" + (match[2] if match[2] in accounts else owner)

    command = [tools[0], f"--defaults-file=/dev/fd/{tools[2]}", "--max-allowed-packet=1G"]
    command += ["--binary-mode", f"--database={name}"]  # without the client's own commands
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[tools[2]],
        ) as process,
    ):
        with suppress(BrokenPipeError), process.stdin, gzip.open(path) as file:
            for is_begin, line in pieces(file):
                if is_begin and not line.startswith(ROWS):
                    line = b"" if SANDBOX.match(line) else DEFINER.sub(known, line)
                process.stdin.write(line)
        if process.wait():
            errors.seek(0)  # MariaDB's client also prints the statement
            raise DatabaseError(errors.read().decode(errors="replace").strip().split("\n")[-1])
