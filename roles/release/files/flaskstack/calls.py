"""What Ansible calls on a host: each takes a dict and returns one with `changed`.

All know `app` (name), `root` (its folder) and `user`.
"""

from __future__ import annotations

import grp
import importlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flaskstack import python
from flaskstack.app_dir import AppDir, environment_of
from flaskstack.change import Change
from flaskstack.deploy_lock import Lock, describe, is_owner
from flaskstack.errors import DeployError, ValidationError
from flaskstack.files import listing
from flaskstack.mysql import find_tools
from flaskstack.settings import Settings, differences, name_of
from flaskstack.units import Units

Wanted = dict[str, Any]
OWN = ("services", "timers", "plan")  # of a set of settings


def gather(params: Wanted) -> dict[str, Any]:
    """Return what a host has of an app, and what of it runs.

    `python` names the interpreter that is looked for; empty for none. With `lock` the deploy lock
    is taken first. Nothing else changes.
    """
    told = lock(params | params["lock"]) if params.get("lock") else {"changed": False}
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    releases = [path for path in app_dir.newest_first() if not path.name.startswith(".")]
    slot, current = app_dir.live(), settings.current()
    return told | {
        "current": app_dir.serving(),  # release that has the traffic, empty when there is none
        "settings": current,
        "slot": slot,
        "previous": app_dir.previous(),
        "settled": settled(app_dir, settings),
        "plan": settings.release(current).get("plan", {}),  # sizes that site.yml planned
        "releases": [path.name for path in releases],
        "environments": {path.name: environment_of(path) for path in releases},
        "sets": [
            path.name for path in listing(settings.sets) if path.name[0] != "."
        ],  # of settings
        "installed": app_dir.installed(),  # environments that are complete
        "history": app_dir.history(),  # the oldest first
        "python": python.find(params["python"]) if params.get("python") else {},
        "database_tools": all(find_tools()),
    }


def settled(app_dir: AppDir, settings: Settings) -> bool:
    """Return whether all of what serves runs, and nothing is left to clean up."""
    slot, name = app_dir.live(), settings.current()
    if not slot or app_dir.current() != app_dir.serving() or app_dir.pending():
        return False
    if app_dir.release_in(app_dir.free()) or settings.in_slot(slot) != name:
        return False
    if not settings.there(name) or not settings.installed(slot, name):
        return False
    proof = settings.release(name)
    needed = [f"{app_dir.app}-web@{slot}.socket", f"{app_dir.app}-web@{slot}.service"]
    needed += [*proof.get("services", []), *proof.get("timers", [])]
    return all(unit["ActiveState"] == "active" for unit in Units().show(needed).values())


def lock(params: Wanted) -> dict[str, Any]:
    """Take the deploy lock for `holder`; `timeout` is in seconds, `force` breaks another's."""
    replaced = Lock(Path(params["root"])).acquire(
        params["holder"], params["timeout"], params.get("force", False)
    )
    # One of this controller that was cut is nobody's news; one of elsewhere may be.
    if replaced and replaced.get("controller") != params["holder"]["controller"]:
        told = f"This deploy takes the place of another: {describe(replaced, int(time.time()))}"
        return {"changed": False, "warnings": [told]}
    return {"changed": False}


def unlock(params: Wanted) -> dict[str, Any]:
    """Give the deploy lock of `holder` back."""
    Lock(Path(params["root"])).release(params["holder"])
    return {"changed": False}


def write_settings(params: Wanted) -> dict[str, Any]:
    """Write a set of settings: texts by path in `files`, and `release`, how one is proved.

    With `check` nothing is written. With `code_only` the set that is in use stays in use, and takes
    the new `release` but for what belongs to its own files.
    """
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    current, files = settings.current(), params["files"]
    if not params.get("check"):
        with app_dir.locked():
            group = grp.getgrnam(params["user"]).gr_gid
            settings.write(files, params["release"], group)
            if params.get("code_only") and current:
                known = settings.release(current).items()
                own = {key: value for key, value in known if key in OWN}
                settings.prove(current, params["release"] | own, group)
    found = differences(settings.files(current), files) if current else []
    return {"changed": False, "name": name_of(files), "current": current, "differences": found}


def changing(params: Wanted, step: Callable[[Change], dict[str, Any]]) -> dict[str, Any]:
    """Change what serves, with nobody else at it."""
    change = Change(params)
    with change.app_dir.locked():
        return {"changed": True} | step(change)


def start(params: Wanted) -> dict[str, Any]:
    """Start a release with its settings beside what serves; see `Change`."""
    return changing(params, Change.start)


def switch(params: Wanted) -> dict[str, Any]:
    """Give it the traffic and the background processes."""
    return changing(params, Change.switch)


def apply(params: Wanted) -> dict[str, Any]:
    """Put `settings` in use with the release that serves, by starting that anew beside itself."""
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    serves, name = app_dir.serving(), params["settings"]
    answer = {"changed": bool(serves), "current": serves}
    if settings.current() == name and settled(app_dir, settings):
        answer["changed"] = False
    if params.get("check") or not serves:
        return answer
    if answer["changed"]:
        params = params | {"release": serves}
        start(params)
        answer = switch(params)
    if params["action"] == "rotation":  # the others hold secrets that are retired
        settings.prune(set())
    return answer


def undo(params: Wanted) -> dict[str, Any]:
    """Go back to what served before; `switched` is what `switch` answered, if it did.

    The deploy lock of `lock` is given back. Without it nothing is done.
    """
    deploy = Lock(Path(params["root"]))
    if not is_owner(deploy.holder(), params["lock"]["holder"]):  # another's, which goes on
        return {"changed": False, "current": AppDir(params["root"], params["app"]).serving()}
    try:
        return changing(params, lambda change: change.undo(params.get("switched") or {}))
    finally:
        deploy.release(params["lock"]["holder"])


# Modules are imported when they are called: each call is a Python of its own.
CALLS = {
    "gather": "calls:gather",
    "lock": "calls:lock",
    "unlock": "calls:unlock",
    "settings": "calls:write_settings",
    "start": "calls:start",
    "switch": "calls:switch",
    "undo": "calls:undo",
    "apply": "calls:apply",
    "stale": "stale:wait",
    "folders": "folders:make",
    "remove_folders": "folders:remove",
    "conflicts": "conflicts:find",
    "singletons": "singletons:place",
    "python": "python:install",
    "environment": "environment:install",
    "build": "build:build",
    "place": "build:place",
    "check": "run:check",
    "migrate": "migrate:migrate",
    "migrations": "migrations:between",
}
ALONE = ("environment", "build", "place", "python")  # one at a time, however often it is begun
# What a dry run may call.
READS = (
    "gather",
    "settings",
    "apply",
    "stale",
    "migrations",
    "singletons",
    "remove_folders",
    "conflicts",
)


def call(name: str) -> int:
    """Read what is params from the standard input, write what came of it; return an exit code."""
    try:
        module, _, function = CALLS[name].partition(":")
        found = getattr(importlib.import_module(f"flaskstack.{module}"), function)
        params = json.load(sys.stdin)
        refused = params.get("check") and name not in READS
        with ExitStack() as stack:
            if name in ALONE and not refused:
                stack.enter_context(AppDir(params["root"], params["app"]).locked())
            answer = {"changed": False} if refused else found(params)
    except ValidationError as error:
        answer = {"failed": True, "msg": str(error), "example": error.example}
    except DeployError as error:
        answer = {"failed": True, "msg": str(error), "step": error.step}
    json.dump(answer, sys.stdout)
    return 0
