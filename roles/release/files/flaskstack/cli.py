"""The operator's command on a host: `flaskstack APP COMMAND`. It needs no controller."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flaskstack import migrations
from flaskstack.app_dir import AppDir
from flaskstack.calls import gather
from flaskstack.change import Change, started_by
from flaskstack.deploy_lock import Lock, describe, this_process
from flaskstack.errors import DeployError, ValidationError
from flaskstack.files import listing
from flaskstack.hints import running_advice
from flaskstack.history import rollback_settings, rollback_target, table
from flaskstack.run import run
from flaskstack.settings import Settings
from flaskstack.units import Deadline, Units

MAINTENANCE = Path("/var/lib/flaskstack/maintenance")  # created by role nginx
NEEDS_ROOT = 77  # exit code of sysexits.h
# Keys of `status` that the table shows.
SHOWN = ("release", "settings", "slot", "since", "by", "commit", "health", "deploy", "hint")

# Result of a command: JSON, text and exit code.
Answer = tuple[dict[str, Any], str, int]


def main(arguments: list[str] | None = None) -> int:
    """Run a command, print its result, and return the exit code."""
    known, more = parser().parse_known_args(arguments)
    if known.name == "logs":
        os.execvp("journalctl", ["journalctl", f"--unit={known.app}-*", *more])
    if more:
        parser().error(f"unknown: {' '.join(more)}")
    if os.geteuid() != 0:
        said = " ".join(sys.argv[1:] if arguments is None else arguments)
        print(f"flaskstack: needs root, for example: sudo flaskstack {said}", file=sys.stderr)
        return NEEDS_ROOT
    try:
        root = "" if known.name == "maintenance" else root_of(known.app)  # host may have only nginx
        answer, text, code = known.act(known, AppDir(root, known.app))
    except (ValidationError, DeployError) as error:
        answer, text, code = {"failed": True, "msg": str(error)}, f"flaskstack: {error}", 1
    if getattr(known, "json", False):
        print(json.dumps(answer, indent=2))
    elif text:
        print(text, file=sys.stderr if answer.get("failed") else sys.stdout)
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="flaskstack", description=__doc__)
    parser.add_argument("app", metavar="APP", help="name of the app")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)

    def command(name: str, act: Callable[..., Answer] | None, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(act=act)
        if name not in ("logs", "run", "recover"):
            made.add_argument("--json", action="store_true", help="print JSON")
        if name in ("rollback", "restart"):
            made.add_argument(
                "--break-lock", action="store_true", help="take over from a deploy that is dead"
            )
        return made

    command(
        "status",
        status,
        "show the active release, its units and their health (exit code 1 on a problem)",
    )
    command("releases", releases, "list the releases on this host")
    back = command("rollback", rollback, "activate a previous release with its settings")
    back.add_argument(
        "release", metavar="ID", nargs="?", default="", help="default: the previous release"
    )
    command("restart", restart, "restart the app without a failed request")
    command("logs", None, "show the journal of the app; takes options of journalctl, such as -f")
    inside = command(
        "run", run_command, "run a command with the user, sandbox and environment of the app"
    )
    inside.add_argument("--release", metavar="ID", default="", help="default: the active release")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    closed = command("maintenance", maintenance, "answer requests with a maintenance page and 503")
    closed.add_argument("state", choices=["on", "off"])
    command("recover", recover, "finish or undo an interrupted deploy; runs at boot")
    return parser


def root_of(app: str) -> str:
    """Return the folder of an app. Raises ValidationError when the app is unknown."""
    settings = Settings(app)
    for name in (settings.current(), *(path.name for path in listing(settings.sets))):
        if root := settings.release(name).get("root"):
            return root
    raise ValidationError(f"{app}: no such app on this host, or none that was put in use")


def status(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """Show the active release and whether it is healthy."""
    state, settings = gather({"app": app_dir.app, "root": app_dir.root}), Settings(app_dir.app)
    slot = state["slot"]
    last = state["history"][-1] if state["history"] else {}
    change = Change({"app": app_dir.app, "root": app_dir.root, "settings": settings.in_slot(slot)})
    well, answer, units = False, "nothing serves", {}
    if slot:
        well, answer = change.watch.health.ask(app_dir.socket(slot), Deadline(10))
        services, timers = change.processes(settings.current())
        names = [change.socket(slot), change.service(slot), *services, *timers]
        units = states(Units(), names, [*map(started_by, timers)])
    now, services = time.time(), [name for name in units if name.endswith(".service")]
    lines = [line for name in services for line in Units().journal(name, now - 3600, now)]
    held, closed = Lock(app_dir.root).holder(), (MAINTENANCE / app_dir.app).exists()
    told = {
        "app": app_dir.app,
        "well": well and all(state in ("active", "waiting") for state in units.values()),
        "release": state["current"],
        "settings": settings.in_slot(slot),
        "slot": slot,
        "since": last.get("time", ""),
        "by": last.get("by", ""),
        "commit": last.get("commit", ""),
        "health": answer,
        "deploy": describe(held, int(time.time())) if held else "",
        "maintenance": closed,
        "hint": running_advice("\n".join(lines)),
        "units": units,
    }
    rows = [[name, told[name]] for name in SHOWN if told[name]]
    rows += [["maintenance", "on: visitors get a 503"]] if closed else []
    rows += [[unit, state] for unit, state in units.items()]
    text = table([[app_dir.app, "well" if told["well"] else "NOT WELL"], *rows])
    return told, text, 0 if told["well"] else 1


def states(units: Units, names: list[str], at_times: list[str]) -> dict[str, str]:
    """Return the states of units; a service started by a timer is shown as waiting between runs."""
    shown = {name: said["ActiveState"] for name, said in units.show([*names, *at_times]).items()}
    for name in at_times:
        if shown[name] != "failed":
            shown[name] = "active" if shown[name] == "activating" else "waiting"
    return shown


def releases(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """List the releases on the host, most recently active or installed first."""
    state = gather({"app": app_dir.app, "root": app_dir.root})
    last = {entry["release"]: entry for entry in state["history"]}
    columns = ["release", "serves", "time", "settings", "commit", "by", "action"]
    rows = []
    for release in state["releases"]:
        serves = f"in slot {state['slot']}" if release == state["current"] else ""
        rows.append(last.get(release, {}) | {"release": release, "serves": serves})
    texts = [[row.get(column) or "-" for column in columns] for row in rows]
    return {"releases": rows}, table([columns, *texts]), 0


def rollback(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """Activate a previous release with the settings it last had."""
    with deploying(known, app_dir, known.release or "the previous release"):
        state = gather({"app": app_dir.app, "root": app_dir.root})
        release = known.release or rollback_target({"this host": state})
        there = ", ".join(state["releases"]) or "none"
        if release not in state["releases"]:
            what = f"no release {release}" if release else "nothing to go back to"
            raise ValidationError(f"{app_dir.app}: {what}; there are: {there}")
        folders = {"from": app_dir.releases / state["current"], "to": app_dir.releases / release}
        ahead = migrations.between(folders)["files"] if state["current"] else []
        answer, text, code = put_in_use(
            app_dir, release, rollback_settings(state, release), "rollback"
        )
    if ahead:
        text += f"\nThe database stays as {state['current']} left it, with these migrations: "
        text += ", ".join(ahead)
    return answer | {"migrations": ahead}, text, code


def restart(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """Restart the active release, in the other slot where memory allows it."""
    with deploying(known, app_dir, "a restart"):
        serves = app_dir.serving()
        if not serves:
            raise ValidationError(f"{app_dir.app}: nothing serves")
        return put_in_use(app_dir, serves, Settings(app_dir.app).in_slot(app_dir.live()), "restart")


def operator() -> str:
    """Return the operator as user@host."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def deploying(known: argparse.Namespace, app_dir: AppDir, what: str) -> Iterator[None]:
    """Hold the deploy lock. Raises ValidationError that names its holder."""
    lock, holder = Lock(app_dir.root), this_process(operator(), what)
    lock.acquire(holder, force=known.break_lock)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost connection must not interrupt the change
    try:
        yield
    finally:
        lock.release(holder)


def put_in_use(app_dir: AppDir, release: str, settings: str, action: str) -> Answer:
    """Start a release with its settings, check it and switch to it."""
    params = {"app": app_dir.app, "root": app_dir.root, "release": release, "settings": settings}
    change = Change(params | {"by": operator(), "action": action})
    with app_dir.locked():
        try:
            change.start()
            answer = change.switch()
        except KeyboardInterrupt:
            change.recover()
            raise DeployError(action, f"interrupted; {app_dir.serving()} is active") from None
    return answer, f"{release} is active with settings {settings}", 0


def run_command(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """Run a command as the app, with input, output and exit code of this process."""
    command = known.command[1:] if known.command[:1] == ["--"] else known.command
    if not command:
        raise ValidationError(
            f"which command? For example: flaskstack {app_dir.app} run flask routes"
        )
    settings = app_dir.settings_of(known.release) if known.release else ""
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopped.append(128 + number)
        units = f"{app_dir.app}.run-{os.getpid()}-*.service"
        subprocess.run(["systemctl", "stop", "--no-block", units], check=False)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = run(
        app_dir.app,
        app_dir.root,
        command,
        release=known.release,
        settings=settings if Settings(app_dir.app).there(settings) else "",
        terminal=any(os.isatty(number) for number in range(3)),
    )
    return {}, "", stopped[0] if stopped else code


def maintenance(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """Enable or disable the maintenance page. nginx checks for the flag file on each request."""
    flag = MAINTENANCE / app_dir.app
    if not flag.with_suffix(".html").exists():
        raise ValidationError(
            f"nginx does not serve {app_dir.app} on this host. On each host where it does: "
            f"sudo {'touch' if known.state == 'on' else 'rm -f'} {flag}"
        )
    if known.state == "on":
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
    text = "visitors get a 503" if known.state == "on" else "visitors are let in"
    return {"maintenance": known.state == "on"}, text, 0


def recover(known: argparse.Namespace, app_dir: AppDir) -> Answer:
    """Finish or undo an interrupted deploy, before the units start."""
    Change({"app": app_dir.app, "root": app_dir.root}).recover_at_boot()
    return {}, "", 0
