"""Functions that Ansible calls on a host. Each takes a dict and returns one with `changed`.

Every call gets `app` (name), `root` (its folder) and `user`.
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

Params = dict[str, Any]


def gather(params: Params) -> dict[str, Any]:
    """Return the state of an app on a host.

    `python` names the interpreter to look up; empty for none. With `lock`, the deploy lock is
    acquired first. The call changes nothing else.
    """
    result = lock(params | params["lock"]) if params.get("lock") else {"changed": False}
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    releases = [path for path in app_dir.newest_first() if not path.name.startswith(".")]
    current = settings.current()
    return result | {
        "current": app_dir.serving(),  # active release, empty when there is none
        "settings": current,
        "slot": app_dir.live(),
        "settled": settled(app_dir, settings),
        "plan": settings.release(current).get("plan", {}),  # sizes planned by site.yml
        "releases": [path.name for path in releases],
        "environments": {path.name: environment_of(path) for path in releases},
        "sets": [path.name for path in listing(settings.sets) if path.name[0] != "."],
        "installed": app_dir.installed(),  # only complete ones
        "history": app_dir.history(),  # oldest first
        "python": python.find(params["python"]) if params.get("python") else {},
        "database_tools": all(find_tools()),
    }


def settled(app_dir: AppDir, settings: Settings) -> bool:
    """Return whether all active units run and no cleanup is pending."""
    slot, name = app_dir.live(), settings.current()
    if not slot or app_dir.current() != app_dir.serving() or app_dir.pending():
        return False
    if app_dir.release_in(app_dir.free()) or settings.in_slot(slot) != name:
        return False
    if not settings.exists(name) or not settings.installed(slot, name):
        return False
    release = settings.release(name)
    names = [f"{app_dir.app}-web@{slot}.socket", f"{app_dir.app}-web@{slot}.service"]
    names += [*release.get("services", []), *release.get("timers", [])]
    return all(unit["ActiveState"] == "active" for unit in Units().show(names).values())


def lock(params: Params) -> dict[str, Any]:
    """Acquire the deploy lock for `holder`; `timeout` in seconds, `force` takes it over."""
    replaced = Lock(Path(params["root"])).acquire(
        params["holder"], params["timeout"], params.get("force", False)
    )
    # Only a lock of another controller is worth a warning: its deploy may still run.
    if replaced and replaced.get("controller") != params["holder"]["controller"]:
        warning = f"This deploy replaces another: {describe(replaced, int(time.time()))}"
        return {"changed": False, "warnings": [warning]}
    return {"changed": False}


def unlock(params: Params) -> dict[str, Any]:
    """Release the deploy lock of `holder`."""
    Lock(Path(params["root"])).release(params["holder"])
    return {"changed": False}


def write_settings(params: Params) -> dict[str, Any]:
    """Write a set of settings: `files` (texts by path) and `release` (health check and units).

    With `check` nothing is written. With `code_only` the active set stays active, and its
    `release` is replaced, except for the keys that belong to its files.
    """
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    current, files = settings.current(), params["files"]
    if not params.get("check"):
        with app_dir.locked():
            group = grp.getgrnam(params["user"]).gr_gid
            settings.write(files, params["release"], group)
            if params.get("code_only") and current:
                release = settings.release(current)
                kept = {
                    key: release[key] for key in ("services", "timers", "plan") if key in release
                }
                settings.write_release(current, params["release"] | kept, group)
    found = differences(settings.files(current), files) if current else []
    return {"changed": False, "name": name_of(files), "current": current, "differences": found}


def changing(params: Params, step: Callable[[Change], dict[str, Any]]) -> dict[str, Any]:
    """Run a step of a change while holding the app's lock."""
    change = Change(params)
    with change.app_dir.locked():
        return {"changed": True} | step(change)


def start(params: Params) -> dict[str, Any]:
    """Start a release with its settings beside the active one; see `Change`."""
    return changing(params, Change.start)


def switch(params: Params) -> dict[str, Any]:
    """Switch traffic and background processes to the started release."""
    return changing(params, Change.switch)


def apply(params: Params) -> dict[str, Any]:
    """Activate `settings` by restarting the active release with them."""
    app_dir, settings = AppDir(params["root"], params["app"]), Settings(params["app"])
    release = app_dir.serving()
    active = settings.current() == params["settings"] and settled(app_dir, settings)
    result = {"changed": bool(release) and not active, "current": release}
    if params.get("check") or not release:
        return result
    if result["changed"]:
        params = params | {"release": release}
        start(params)
        result = switch(params)
    if params["action"] == "rotation":  # the other sets hold revoked secrets
        settings.prune(set())
    return result


def undo(params: Params) -> dict[str, Any]:
    """Return to the previous release; `switched` is the result of `switch`, if it succeeded.

    Then release the deploy lock `lock`. If another deploy holds the lock, nothing is done.
    """
    deploy = Lock(Path(params["root"]))
    if not is_owner(deploy.holder(), params["lock"]["holder"]):  # another deploy's
        return {"changed": False, "current": AppDir(params["root"], params["app"]).serving()}
    try:
        return changing(params, lambda change: change.undo(params.get("switched") or {}))
    finally:
        deploy.release(params["lock"]["holder"])


# Modules are imported on demand: each call runs in its own Python process.
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
    "status": "status:gather_status",
    "files": "host_files:write_files",
    "singletons": "singletons:place",
    "python": "python:install",
    "environment": "environment:install",
    "build": "build:build",
    "place": "build:place",
    "check": "run:check",
    "migrate": "migrate:migrate",
    "migrations": "migrations:between",
    "restore_dump": "restore:restore_dump",
}
EXCLUSIVE = {"environment", "build", "place", "python"}  # run one at a time
# Calls that check mode may run.
READS = {"gather", "settings", "apply", "stale", "migrations", "singletons", "remove_folders"}
READS |= {"conflicts", "status", "files", "restore_dump"}


def call(name: str) -> int:
    """Read params from standard input, run a call and write its result; return an exit code."""
    try:
        module, _, function = CALLS[name].partition(":")
        run = getattr(importlib.import_module(f"flaskstack.{module}"), function)
        params = json.load(sys.stdin)
        skipped = params.get("check") and name not in READS
        with ExitStack() as stack:
            if name in EXCLUSIVE and not skipped:
                stack.enter_context(AppDir(params["root"], params["app"]).locked())
            result = {"changed": False} if skipped else run(params)
    except ValidationError as error:
        result = {"failed": True, "msg": str(error), "example": error.example}
    except DeployError as error:
        result = {"failed": True, "msg": str(error), "step": error.step}
    json.dump(result, sys.stdout)
    return 0
