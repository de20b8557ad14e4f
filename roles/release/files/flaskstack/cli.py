"""The operator's command on a host: `flaskstack APP COMMAND`. It needs no controller.

It uses argparse, since hosts have only Python's standard library.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flaskstack import migrations
from flaskstack.app_dir import AppDir
from flaskstack.calls import gather
from flaskstack.change import Change
from flaskstack.deploy_lock import Lock, this_process
from flaskstack.errors import DeployError, ValidationError
from flaskstack.history import rollback_settings, rollback_target, table
from flaskstack.run import run as run_command
from flaskstack.settings import Settings
from flaskstack.status import (
    MAINTENANCE,
    app_status,
    full_status,
    is_known,
    problems,
    root_of,
    status_table,
    write_metrics,
)

NEEDS_ROOT = 77  # exit code of sysexits.h

# Result of a command: JSON, text and exit code.
Result = tuple[dict[str, Any], str, int]


def main(arguments: list[str] | None = None) -> int:
    """Run a command, print its result, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options, journal_options = parser().parse_known_args(arguments)
    options.journal_options = journal_options
    if journal_options and options.name != "logs":
        parser().error(f"unknown: {' '.join(journal_options)}")
    if os.geteuid() != 0 and options.name != "logs":
        command = " ".join(arguments)
        print(f"flaskstack: needs root, for example: sudo flaskstack {command}", file=sys.stderr)
        return NEEDS_ROOT
    try:
        result, text, code = options.run(options, AppDir(folder_of(options), options.app))
    except (ValidationError, DeployError) as error:
        result, text, code = {"failed": True, "msg": str(error)}, f"flaskstack: {error}", 1
    if getattr(options, "json", False):
        print(json.dumps(result, indent=2))
    elif text:
        print(text, file=sys.stderr if result.get("failed") else sys.stdout)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; a command's help is its function's docstring."""
    parser = argparse.ArgumentParser(prog="flaskstack", description=__doc__.splitlines()[0])
    parser.add_argument("app", metavar="APP", help="name of the app")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)
    functions = (status, releases, rollback, restart, logs, run, maintenance, metrics, recover)
    added = {}
    for function in functions:
        text, name = function.__doc__.splitlines()[0], function.__name__
        added[name] = commands.add_parser(name, help=text, description=text)
        added[name].set_defaults(run=function)
        if name not in ("logs", "run", "metrics", "recover"):
            added[name].add_argument("--json", action="store_true", help="print JSON")
        if name in ("rollback", "restart"):
            text = "take over from a deploy that is dead"
            added[name].add_argument("--break-lock", action="store_true", help=text)
    text = "default: the previous release"
    added["rollback"].add_argument("release", metavar="ID", nargs="?", default="", help=text)
    text = "default: the active release"
    added["run"].add_argument("--release", metavar="ID", default="", help=text)
    added["run"].add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    added["maintenance"].add_argument("state", choices=["on", "off"])
    return parser


def folder_of(options: argparse.Namespace) -> str:
    """Return the folder of the app. Raises ValidationError when the command needs one.

    `maintenance` also works on a host with only nginx, `logs` without root, and `status` on any
    host of the app.
    """
    if options.name in ("logs", "maintenance"):
        return ""
    root = root_of(options.app)
    if root or (options.name in ("status", "metrics") and is_known(options.app)):
        return root
    raise ValidationError(
        f"{options.app}: no such app on this host, or no release of it was activated"
    )


def status(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Show the active release, its health (exit code 1 on a problem) and the state of the host."""
    host = full_status(app_dir.app)
    app = app_status(app_dir) if app_dir.root != Path() else {}
    found = problems(app, host)
    result = app | {"host": host, "problems": found}
    healthy = not app or app["healthy"]
    return result, status_table(app_dir.app, app, host, found), 0 if healthy else 1


def metrics(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Write the status as metrics for Prometheus; runs on a timer."""
    write_metrics(app_dir)
    return {}, "", 0


def releases(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """List the releases on this host, most recently active or installed first."""
    state = gather({"app": app_dir.app, "root": app_dir.root})
    last = {entry["release"]: entry for entry in state["history"]}
    columns = ["release", "active", "time", "settings", "commit", "by", "action"]
    rows = []
    for release in state["releases"]:
        active = f"in slot {state['slot']}" if release == state["current"] else ""
        rows.append(last.get(release, {}) | {"release": release, "active": active})
    texts = [[row.get(column) or "-" for column in columns] for row in rows]
    return {"releases": rows}, table([columns, *texts]), 0


def rollback(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Activate a previous release with the settings that it last had."""
    with deploying(options, app_dir, options.release or "the previous release"):
        state = gather({"app": app_dir.app, "root": app_dir.root})
        release = options.release or rollback_target({"this host": state})
        if release not in state["releases"]:
            missing = f"no release {release}" if release else "no previous release"
            there = ", ".join(state["releases"]) or "none"
            raise ValidationError(f"{app_dir.app}: {missing}; there are: {there}")
        folders = {"from": app_dir.releases / state["current"], "to": app_dir.releases / release}
        ahead = migrations.between(folders)["files"] if state["current"] else []
        settings = rollback_settings(state, release)
        result, text, code = activate(app_dir, release, settings, "rollback")
    if ahead:
        text += f"\nThe database keeps the schema of {state['current']}, with these migrations: "
        text += ", ".join(ahead)
    return result | {"migrations": ahead}, text, code


def restart(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Restart the app without a failed request, in the other slot where memory allows it."""
    with deploying(options, app_dir, "a restart"):
        release = app_dir.serving()
        if not release:
            raise ValidationError(f"{app_dir.app}: no release is active")
        settings = Settings(app_dir.app).in_slot(app_dir.live())
        return activate(app_dir, release, settings, "restart")


def operator() -> str:
    """Return the operator as user@host."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def deploying(options: argparse.Namespace, app_dir: AppDir, what: str) -> Iterator[None]:
    """Hold the deploy lock. Raises ValidationError that names its holder."""
    lock, holder = Lock(app_dir.root), this_process(operator(), what)
    lock.acquire(holder, force=options.break_lock)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost connection must not interrupt the change
    try:
        yield
    finally:
        lock.release(holder)


def activate(app_dir: AppDir, release: str, settings: str, action: str) -> Result:
    """Start a release with its settings, check it and switch to it."""
    params = {"app": app_dir.app, "root": app_dir.root, "release": release, "settings": settings}
    change = Change(params | {"by": operator(), "action": action})
    with app_dir.locked():
        try:
            change.start()
            result = change.switch()
        except KeyboardInterrupt:
            change.recover()
            raise DeployError(action, f"interrupted; {app_dir.serving()} is active") from None
    return result, f"{release} is active with settings {settings}", 0


def logs(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Show the journal of the app; takes options of journalctl, such as -f."""
    command = ["journalctl", f"--unit={app_dir.app}-*", *options.journal_options]
    os.execvp(command[0], command)


def run(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Run a command with the user, sandbox and environment of the app.

    The command uses the input and output of this process, which exits with its exit code.
    """
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise ValidationError(
            f"no command given. For example: flaskstack {app_dir.app} run flask routes"
        )
    settings = app_dir.settings_of(options.release) if options.release else ""
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopped.append(128 + number)
        units = f"{app_dir.app}.run-{os.getpid()}-*.service"
        subprocess.run(["systemctl", "stop", "--no-block", units], check=False)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = run_command(
        app_dir.app,
        app_dir.root,
        command,
        release=options.release,
        settings=settings if Settings(app_dir.app).exists(settings) else "",
        terminal=any(os.isatty(number) for number in range(3)),
    )
    return {}, "", stopped[0] if stopped else code


def maintenance(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Answer requests with a maintenance page and 503, or stop doing so.

    nginx checks for the flag file on each request.
    """
    flag, is_on = MAINTENANCE / app_dir.app, options.state == "on"
    if not flag.with_suffix(".html").exists():
        command = "touch" if is_on else "rm -f"
        raise ValidationError(
            f"nginx does not serve {app_dir.app} on this host. On each host where it does: "
            f"sudo {command} {flag}"
        )
    if is_on:
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
    return {"maintenance": is_on}, f"maintenance page is {options.state}", 0


def recover(options: argparse.Namespace, app_dir: AppDir) -> Result:
    """Complete or undo an interrupted deploy, before the units start; runs at boot."""
    Change({"app": app_dir.app, "root": app_dir.root}).recover_at_boot()
    return {}, "", 0
