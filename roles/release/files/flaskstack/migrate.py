"""Bring an app's database to what a release needs: once, alone, and after a dump."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flaskstack.database import (
    DatabaseError,
    Session,
    count_tables,
    find_tools,
    in_memory,
    option_file,
    take_lock,
    write_dump,
)
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: migrate_release
short_description: Run the commands that a release needs before it serves
description:
  - Holds a lock of the app's database meanwhile, and dumps the database first.
  - Runs the commands of a first installation only where nothing can have been installed before.
author: Flaskstack
"""
LOGIN: dict[str, Any] = {
    "host": {"type": "str", "default": ""},  # empty: through the socket
    "port": {"type": "int", "default": 3306},
    "socket": {"type": "path", "default": ""},
    "ca": {"type": "path", "default": ""},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "name": {"type": "str", "required": True},
}
OPTIONS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
    "runner": {"type": "path", "required": True},  # runs a command as the app runs
    "release": {"type": "str", "required": True},
    "by": {"type": "str", "default": ""},  # who deploys
    "database": {"type": "dict", "options": LOGIN},  # none: the app has none of ours
    "environment": {"type": "str", "default": "", "no_log": True},  # lines NAME=value
    "commands": {"type": "list", "elements": "str", "default": []},
    "first_install": {"type": "list", "elements": "str", "default": []},
    "first_install_when": {
        "type": "str",
        "default": "auto",
        "choices": ["auto", "run", "skip"],
    },
    "fleet_serves": {"type": "bool", "default": True},  # some host has, or had, or may have
    "foreign_databases": {"type": "list", "elements": "str", "default": []},  # names of variables
    "shared": {"type": "list", "elements": "str", "default": []},  # folders and files of data
    "dump": {"type": "bool", "default": True},
    "dump_folder": {"type": "path", "required": True},
    "dump_keep": {"type": "int", "default": 5},
    # Masked by Ansible wherever they are in the module's answer, a command's output included.
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
}
SHOWN = 40  # lines of output that a failure shows
MARKER = "first_install.json"


class FailedError(Exception):
    """Why the release cannot be used, and what is known about it."""

    def __init__(self, message: str, **details: Any) -> None:
        """Keep details beside the message."""
        super().__init__(message)
        self.details = details


@contextmanager
def host_lock(root: Path, by: str, release: str) -> Iterator[int]:
    """Migrate nowhere else on this host; whoever is refused reads here who does."""
    opened = os.open(root / ".migrate.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(opened, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedError(f"migrations run here already: {file.read().strip()}") from None
        file.truncate()
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        file.write(f"{by or 'somebody'} migrates to {release} since {since}, process {os.getpid()}")
        file.flush()
        yield file.fileno()


def read_marker(root: Path) -> dict[str, Any]:
    """Return what is known about the first installation on this host."""
    try:
        return json.loads((root / MARKER).read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"state": "started", "release": "?", "time": "?"}


def write_marker(root: Path, state: str, release: str) -> None:
    """Note how far the first installation got."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    partial = root / f".{MARKER}"
    with partial.open("w") as file:
        file.write(json.dumps({"state": state, "release": release, "time": since}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(root / MARKER)


def holds_data(root: Path, shared: list[str]) -> str:
    """Name a shared folder or file that is not empty."""
    for name in shared:
        path = root / "shared" / name
        files = path.rglob("*") if path.is_dir() else [path]
        if any(file.is_file() and file.stat().st_size for file in files):
            return name
    return ""


def decide_first_install(wanted: dict[str, Any], tables: int) -> tuple[bool, str]:
    """Say whether the commands of a first installation may run, and if not, why."""
    marker = read_marker(Path(wanted["root"]))
    when = wanted["first_install_when"]
    if when == "run":
        return True, ""
    if when == "skip":
        return False, "release_first_install says skip"
    if marker.get("state") == "started":
        raise FailedError(
            f"app_first_install_commands were begun on {marker['time']} and did not end well. "
            "See what they left, then say -e release_first_install=run (all of them once more) "
            "or -e release_first_install=skip (never again)"
        )
    if marker:
        return False, ""
    if wanted["fleet_serves"]:
        return False, "a release has served before"
    if tables:
        return False, f"the database has {tables} tables already"
    if found := holds_data(Path(wanted["root"]), wanted["shared"]):
        return False, f"shared/{found} holds data already"
    if wanted["foreign_databases"]:
        names = ", ".join(wanted["foreign_databases"])
        raise FailedError(
            f"app_first_install_commands may wipe data, and nobody here can tell whether there is "
            f"some: {names} names a database elsewhere. Say -e release_first_install=run once if "
            "it is empty, -e release_first_install=skip if not"
        )
    return True, ""


def run_commands(
    wanted: dict[str, Any], variable: str, commands: list[str], locks: list[int]
) -> None:
    """Run a variable's commands as the app runs, one after the other, until one fails.

    This module ends with its SSH connection, a command does not. So commands inherit the locks,
    which stay taken until the last one that has them ends, and write to a file, not to a pipe.
    """
    lines = [line for line in wanted["environment"].splitlines() if line]
    variables = "\n".join([*lines, "", ""])
    for command in commands:
        as_app = [wanted["runner"], "--environment-from-stdin", "--release", wanted["release"]]
        with tempfile.TemporaryFile("w+", errors="replace") as written:
            code = subprocess.run(
                [*as_app, "sh", "-c", command],
                input=variables,
                stdout=written,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                pass_fds=locks,
                start_new_session=True,
            ).returncode
            written.seek(0)
            output = [line.rstrip("\n") for line in deque(written, SHOWN)]
        if code:
            raise FailedError(
                f"{variable} failed with code {code} ({command})", output=output, step=variable
            )


def prune(folder: Path, keep: int) -> None:
    """Keep the newest dumps; their names begin with their time."""
    for old in sorted(folder.glob("[0-9]*.sql.gz"))[:-keep]:
        old.unlink()


def take_dump(wanted: dict[str, Any], dumper: str, options: int) -> str:
    """Dump the database and return the dump's path."""
    folder = Path(wanted["dump_folder"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = folder / f"{stamp}-{wanted['release']}.sql.gz"
    try:
        write_dump(dumper, options, wanted["database"]["name"], path)
    except (OSError, DatabaseError) as error:
        raise FailedError(
            f"the database could not be dumped before its migration: {error}. Nothing was "
            "migrated. release_dump: false migrates without a dump",
            step="dump",
        ) from error
    prune(folder, wanted["dump_keep"])
    return str(path)


def open_database(stack: ExitStack, wanted: dict[str, Any], client: str) -> tuple[Session, int]:
    """Log in and take the app's lock."""
    login = wanted["database"]
    options = stack.enter_context(in_memory(option_file(login, client)))
    where = login["host"] or login["socket"]
    try:
        session = Session(client, options, login["name"])
        stack.callback(session.close)
        holder = take_lock(session, f"flaskstack_{wanted['app']}")
    except DatabaseError as error:
        raise FailedError(f"{login['user']} cannot use the database at {where}: {error}") from error
    if holder:
        raise FailedError(
            f"another deploy migrates the database at {where}: {holder} hold the lock "
            f"flaskstack_{wanted['app']}. Wait until they end"
        )
    return session, options


def migrate(wanted: dict[str, Any]) -> dict[str, Any]:
    """Lock, dump, run, and give the lock back."""
    root = Path(wanted["root"])
    result: dict[str, Any] = {"changed": False, "dump_file": "", "note": "", "installed": False}
    result["tools_missing"] = False
    client, dumper = find_tools()
    if wanted["database"] and not (client and (dumper or not wanted["dump"])):
        return result | {"tools_missing": True}
    with ExitStack() as stack:
        locks = [stack.enter_context(host_lock(root, wanted["by"], wanted["release"]))]
        session, options, tables = None, 0, 0
        if wanted["database"]:
            session, options = open_database(stack, wanted, client)
            locks.append(session.process.stdin.fileno())  # the client ends when nobody has it
            tables = count_tables(session)
        install, note = (
            decide_first_install(wanted, tables) if wanted["first_install"] else (False, "")
        )
        if not install and not wanted["commands"]:
            mark(wanted, note)
            return result | {"note": note}
        if tables and wanted["dump"]:
            result["dump_file"] = take_dump(wanted, dumper, options)
        result |= {"changed": True, "note": note, "installed": install}
        try:
            if install:
                write_marker(root, "started", wanted["release"])
                run_commands(wanted, "app_first_install_commands", wanted["first_install"], locks)
                write_marker(root, "done", wanted["release"])
            run_commands(wanted, "app_migrate_commands", wanted["commands"], locks)
            if session:
                session.ask("SELECT 1")
        except DatabaseError as error:
            result["note"] = f"the database's lock was lost meanwhile ({error})"
        except FailedError as error:
            error.details |= {"dump_file": result["dump_file"]}
            raise
        mark(wanted, note)
    return result


def mark(wanted: dict[str, Any], note: str) -> None:
    """Note that there was something before, so that it need not be said again."""
    if note:
        write_marker(Path(wanted["root"]), "found", wanted["release"])


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS)
    try:
        module.exit_json(**migrate(module.params))
    except FailedError as error:
        module.fail_json(msg=str(error), **({"output": [], "dump_file": ""} | error.details))


if __name__ == "__main__":
    main()
