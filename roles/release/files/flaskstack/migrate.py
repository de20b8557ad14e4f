"""Migrate an app's database for a release: once per fleet, under a lock, after a dump."""

from __future__ import annotations

import json
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flaskstack.app_dir import AppDir
from flaskstack.errors import DeployError
from flaskstack.files import read, write
from flaskstack.hints import advice, exception
from flaskstack.mysql import (
    LOOPBACK,
    ROOT,
    DatabaseError,
    Session,
    check_room,
    count_tables,
    find_tools,
    option_file,
    take_lock,
    write_dump,
)
from flaskstack.run import in_memory, output_of

SHOWN = 40  # lines of output that a failure shows
MARKER = "first_install.json"
MIGRATE = "Migrate the database"
LOCK_TIMEOUT = "Lock wait timeout exceeded"
TRANSACTIONS = (
    "SELECT p.id, p.user, p.host, TIMESTAMPDIFF(SECOND, t.trx_started, NOW()) "
    "FROM information_schema.innodb_trx t JOIN information_schema.processlist p "
    "ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() ORDER BY t.trx_started"
)


def migrate(params: dict[str, Any]) -> dict[str, Any]:
    """Acquire the locks, dump the database, run the commands, and release the locks.

    `params` has `app`, `root`, `release` and `settings` (of the new release), `by` (user),
    `commands`, `environment` (lines NAME=value), `dump`, `dump_folder`, `dump_keep` (number),
    `dump_limit` (MiB; 0: none), `backed_up` (whether continuous backups exist).
    `database` is the login: host (empty: socket), port, socket, ca, user, password, name; empty
    without a managed database. For a first installation: `first_install` (commands),
    `first_install_when` (auto, run, skip), `fleet_serves` (whether some host has, had or may have
    a release), `foreign_databases` (names of variables), `shared` (folders and files of data).

    The result has `dump_file`, `undo` (how to undo a migration without a dump), `installed`, `note`
    and `tools_missing`; if that is true, nothing was done. Raises DeployError when the release
    cannot be used.
    """
    result = {"changed": False, "dump_file": "", "undo": "", "note": ""}
    result |= {"installed": False, "tools_missing": False}
    client, dumper = find_tools()
    database, commands = params.get("database"), params["commands"]
    if database and not (client and (dumper or not params["dump"])):
        return result | {"tools_missing": True}
    root, release = Path(params["root"]), params["release"]
    with ExitStack() as stack:
        locks = [lock_host(stack, params)]
        session, options, tables, size, install, note = None, 0, 0, 0, False, ""
        if database:
            session, options = open_database(stack, params, client)
            locks.append(session.process.stdin.fileno())  # the client runs until all copies close
            tables, size = count_tables(session, database["name"])
        if params["first_install"]:
            install, note = decide_first_install(params, tables)
        if install or commands:
            result |= {"changed": True, "installed": install}
            if tables and params["dump"]:
                result |= take_dump(params, dumper, options, size)
            if install:
                write_marker(root, "started", release)
                run_commands(params, "app_first_install_commands", locks, result)
                write_marker(root, "done", release)
            run_commands(params, "app_migrate_commands", locks, result)
            try:
                if session:
                    session.query("SELECT 1")
            except DatabaseError as error:
                result["note"] = f"the database's lock was lost during the migration ({error})"
        if note:  # recorded, so that the next deploy does not report it again
            write_marker(root, "found", release)
        return result | {"note": note or result["note"]}


def lock_host(stack: ExitStack, params: dict[str, Any]) -> int:
    """Acquire the host's lock and record the migration in it; return its file's descriptor."""
    file = stack.enter_context(AppDir(params["root"], params["app"]).locked())
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    user = params["by"] or "somebody"
    file.write(f"{user} has been migrating to {params['release']} since {since}")
    file.flush()
    stack.callback(file.truncate, 0)
    return file.fileno()


def open_database(stack: ExitStack, params: dict[str, Any], client: str) -> tuple[Session, int]:
    """Log in and acquire the app's lock; return the session and its options' descriptor."""
    login = params["database"]
    options = stack.enter_context(in_memory(option_file(login, client)))
    where = login.get("host") or login["socket"]
    try:
        session = Session(client, options, login["name"])
        stack.callback(session.close)
        holder = take_lock(session, f"flaskstack_{params['app']}")
    except DatabaseError as error:
        reason = f"{login['user']} cannot use the database at {where}: {error}"
        raise DeployError(MIGRATE, "\n".join(filter(None, [reason, advice(str(error))]))) from error
    if holder:
        raise DeployError(
            MIGRATE,
            f"another deploy migrates the database at {where}: {holder} hold the lock "
            f"flaskstack_{params['app']}. Wait until they end",
        )
    return session, options


def take_dump(params: dict[str, Any], dumper: str, options: int, size: int) -> dict[str, str]:
    """Dump the database and remove the oldest dumps; return the new one's path as `dump_file`.

    A database of more than `dump_limit` is not dumped if it has continuous backups.
    """
    step, limit, database = "Dump the database", params["dump_limit"], params["database"]
    if limit and size > limit << 20:
        large = f"the database has {size >> 20} MiB, more than release_dump_limit ({limit})"
        if not params["backed_up"]:
            raise DeployError(
                step,
                f"{large}, and no continuous backups. Nothing was migrated. Add "
                "-e release_dump_limit=0 to dump it, or set backup_repository (role backup)",
            )
        now = time.strftime("%Y-%m-%d %H:%M:%S+00:00", time.gmtime())
        undo = f"playbooks/restore.yml -e restore_to='{now}' undoes the migration"
        return {"undo": f"No dump before the migration: {large}. {undo}"}
    folder = Path(params["dump_folder"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / time.strftime(f"%Y%m%dT%H%M%SZ-{params['release']}.sql.gz", time.gmtime())
    try:
        with ExitStack() as stack:
            check_room(folder, size)
            if database["host"] in ("", *LOOPBACK) and Path(database["socket"]).exists():
                # Only root may read the routines of other accounts.
                login = option_file(database | ROOT, find_tools()[0])
                options = stack.enter_context(in_memory(login))
            write_dump(dumper, options, database["name"], path)
    except (OSError, DatabaseError) as error:
        reason = f"the database could not be dumped before its migration: {error}. Nothing was "
        reason += "migrated. release_dump: false migrates without a dump"
        raise DeployError(step, "\n".join(filter(None, [reason, advice(str(error))]))) from error
    history = AppDir(params["root"], params["app"]).history()
    prune(path, {entry["release"] for entry in history} | {params["release"]}, params["dump_keep"])
    return {"dump_file": str(path)}


def prune(new: Path, releases: set[str], keep: int) -> None:
    """Keep `new` and the latest dumps of `releases`; other files are not touched."""
    names = re.compile(rf"\d{{8}}T\d{{6}}Z-({'|'.join(map(re.escape, releases))})\.sql\.gz")
    dumps = [path for path in new.parent.iterdir() if names.fullmatch(path.name) and path != new]
    dumps.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in dumps[max(keep - 1, 0) :]:
        path.unlink()


def run_commands(
    params: dict[str, Any], variable: str, locks: list[int], result: dict[str, Any]
) -> None:
    """Run a variable's commands in the app's environment, in order, until one fails.

    `result` has the dump, or another way to undo the migration.

    This program ends with its SSH connection, but a command may continue. Commands inherit the
    locks, so the locks are held until all commands have ended.
    """
    first = variable == "app_first_install_commands"
    for command in params["first_install" if first else "commands"]:
        code, output = output_of(
            params["app"],
            params["root"],
            ["sh", "-c", command],
            release=params["release"],
            settings=params["settings"],
            environment=params["environment"],
            pass_fds=locks,
        )
        if code:
            lines = output.splitlines()
            reason = [f"{variable} failed with code {code} ({command}). Its output:"]
            reason += [*(exception(lines) or lines[-SHOWN:]), advice(output)]
            if LOCK_TIMEOUT in output:
                reason += find_transactions(params.get("database") or {})
            if dump := result["dump_file"]:
                reason.append(
                    f"playbooks/restore_dump.yml restores {dump}, made before the migration"
                )
            reason.append(result["undo"])
            raise DeployError(MIGRATE, "\n".join(filter(None, reason)))


def find_transactions(database: dict[str, Any]) -> list[str]:
    """Return the open transactions of a database, oldest first. Only root can list all of them."""
    if not database:
        return []
    if database["host"] not in ("", *LOOPBACK):
        return [f"On the database's host, root can list the open transactions: {TRANSACTIONS}"]
    client, transactions = find_tools()[0], []
    with in_memory(option_file(database | ROOT, client)) as options:
        session = Session(client, options, database["name"])
        try:
            for number, user, host, seconds in session.query(TRANSACTIONS):
                holder = f"connection {number} of {user} from {host}, for {seconds} seconds"
                text = f"A transaction locks tables or rows: {holder}. To end it: KILL {number}"
                transactions.append(text)
        except DatabaseError:
            pass
        finally:
            session.close()
    return transactions


# First installation.


def decide_first_install(params: dict[str, Any], tables: int) -> tuple[bool, str]:
    """Return whether to run app_first_install_commands, and if not, a reason to report once."""
    root, when = Path(params["root"]), params["first_install_when"]
    marker = json.loads(read(root / MARKER) or "{}")
    if when == "run":
        return True, ""
    if when == "skip":
        return False, "release_first_install is skip"
    if marker.get("state") == "started":
        raise DeployError(
            MIGRATE,
            f"app_first_install_commands started on {marker['time']} and did not finish. Check "
            "what they changed, then add -e release_first_install=run (run all of them again) or "
            "-e release_first_install=skip (never run them)",
        )
    if marker:
        return False, ""
    if params["fleet_serves"]:
        return False, "a release was active before"
    if tables:
        return False, f"the database already has {tables} tables"
    if name := find_data(root, params["shared"]):
        return False, f"shared/{name} already has data"
    if params["foreign_databases"]:
        names = ", ".join(params["foreign_databases"])
        raise DeployError(
            MIGRATE,
            "app_first_install_commands may delete data, and it is unknown whether there is any: "
            f"{names} names a database elsewhere. Add -e release_first_install=run once if it is "
            "empty, otherwise -e release_first_install=skip",
        )
    return True, ""


def find_data(root: Path, shared: list[str]) -> str:
    """Return the name of the first shared folder or file with content; empty without any."""
    for name in shared:
        path = root / "shared" / name
        files = path.rglob("*") if path.is_dir() else [path]
        if any(file.is_file() and file.stat().st_size for file in files):
            return name
    return ""


def write_marker(root: Path, state: str, release: str) -> None:
    """Record the first installation: started, done, or found (data existed before)."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write(root / MARKER, json.dumps({"state": state, "release": release, "time": now}) + "\n")
