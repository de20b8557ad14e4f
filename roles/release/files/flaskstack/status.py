"""Status of an app and its host: for operators, Ansible and Prometheus."""

from __future__ import annotations

import json
import time
from calendar import timegm
from pathlib import Path
from typing import Any

from flaskstack import host_status
from flaskstack.app_dir import TIME, AppDir
from flaskstack.calls import gather
from flaskstack.change import Change, started_by
from flaskstack.deploy_lock import Lock, describe
from flaskstack.files import listing, write
from flaskstack.hints import running_advice
from flaskstack.history import table
from flaskstack.settings import Settings
from flaskstack.units import Deadline, Units

MAINTENANCE = Path("/var/lib/flaskstack/maintenance")  # created by role nginx
FACTS = Path("/etc/ansible/facts.d")  # files of the apps on the host
SLOW = Path("/var/lib/flaskstack/status.json")  # the slow parts, for the metrics
SLOW_AGE = 3600  # seconds
# Metrics of the file of an app, and of the file of the host.
APP_METRICS = {
    "app_healthy": "1 if the active release is healthy and all units of the app run.",
    "app_release_info": "The active release.",
    "app_release_timestamp_seconds": "When the active release was activated.",
    "app_maintenance": "1 while requests get the maintenance page.",
    "site_errors": "Requests that nginx answered with 5xx in the last five minutes.",
}
HOST_METRICS = {
    "unit_down": "Units that should run and do not.",
    "service_memory_bytes": "Memory that a service has allocated.",
    "service_memory_limit_bytes": "Limit of a service's memory, from the plan.",
    "security_updates": "Security updates that are not installed.",
    "restarts_pending": "Services that use outdated files.",
    "reboot_pending": "1 if a new kernel waits for a reboot.",
    "bans": "Addresses that fail2ban bans.",
    "failed_logins": "Failed SSH logins of the last 24 hours.",
    "status_timestamp_seconds": "When these metrics were written.",
}


def root_of(app: str) -> str:
    """Return the folder of an app; empty if no release of it was activated on this host."""
    settings = Settings(app)
    for name in (settings.current(), *(path.name for path in listing(settings.sets))):
        if root := settings.release(name).get("root"):
            return root
    return ""


def is_known(app: str) -> bool:
    """Return whether an app has a service on this host, such as its database."""
    return any(FACTS.glob(f"flaskstack_*_{app}.fact"))


def gather_status(params: dict[str, Any]) -> dict[str, Any]:
    """Return the status of the host and, if a release is active on it, of the app."""
    app = params["app"]
    host = full_status(app)
    root = root_of(app)
    found = app_status(AppDir(root, app)) if root else {}
    return {"changed": False, "app": found, "host": host, "problems": problems(found, host)}


def full_status(app: str) -> dict[str, Any]:
    """Return the status of the host, with the errors of the app's site on it."""
    run = Units().run
    return host_status.host_status(run) | {"site_errors": host_status.site_errors(run, app)}


def app_status(app_dir: AppDir) -> dict[str, Any]:
    """Return the active release of an app, its units and their health."""
    state, settings = gather({"app": app_dir.app, "root": app_dir.root}), Settings(app_dir.app)
    slot = state["slot"]
    last = state["history"][-1] if state["history"] else {}
    change = Change({"app": app_dir.app, "root": app_dir.root, "settings": settings.in_slot(slot)})
    healthy, health, states, journal = False, "no release is active", {}, ""
    if slot:
        healthy, health = change.watch.health.check(app_dir.socket(slot), Deadline(10))
        services, timers = change.processes(settings.current())
        names = [change.socket(slot), change.service(slot), *services, *timers]
        timed = [started_by(timer) for timer in timers]
        found = Units().show([*names, *timed])
        states = {name: unit["ActiveState"] for name, unit in found.items()}
        waiting = {"activating": "active", "failed": "failed"}  # all others wait for the timer
        states |= {name: waiting.get(states[name], "waiting") for name in timed}
        now = time.time()
        lines = [Units().journal(name, now - 3600, now) for name in names if ".service" in name]
        journal = "\n".join(line for each in lines for line in each)
    lock = Lock(app_dir.root).holder()
    return {
        "app": app_dir.app,
        "healthy": healthy and set(states.values()) <= {"active", "waiting"},
        "release": state["current"],
        "settings": settings.in_slot(slot),
        "slot": slot,
        "since": last.get("time", ""),
        "by": last.get("by", ""),
        "commit": last.get("commit", ""),
        "health": health,
        "deploy": describe(lock, int(time.time())) if lock else "",
        "maintenance": (MAINTENANCE / app_dir.app).exists(),
        "hint": running_advice(journal),
        "units": states,
    }


def problems(app: dict[str, Any], host: dict[str, Any]) -> list[str]:
    """Return what an operator should look at."""
    found = []
    if app and not app["healthy"]:
        down = [f"{name} {state}" for name, state in app["units"].items() if state != "active"]
        down = [text for text in down if not text.endswith(" waiting")]
        found.append(f"{app['app']} is UNHEALTHY: {', '.join(down) or app['health']}")
    if app and app["maintenance"]:
        found.append(f"{app['app']} shows the maintenance page")
    seen = set(app.get("units", {})) if app else set()
    return [*found, *(text for text in host_status.host_problems(host) if not names(text, seen))]


def names(text: str, units: set[str]) -> bool:
    """Return whether a problem is about one of the app's units, which its health reports."""
    return text.partition(" ")[0] in units


def write_metrics(app_dir: AppDir) -> None:
    """Write the status as metrics, for a node exporter's textfile collector."""
    folder, run = host_status.METRICS, Units().run
    folder.mkdir(parents=True, exist_ok=True)
    host = host_status.quick_status(run) | slow_parts(run)
    write(folder / "host.prom", metrics_text(HOST_METRICS, host_samples(host)))
    app = app_status(app_dir) if app_dir.root != Path() else {}
    samples = app_samples(app) if app else {}
    samples["site_errors"] = [({"app": app_dir.app}, host_status.site_errors(run, app_dir.app))]
    write(folder / f"{app_dir.app}_status.prom", metrics_text(APP_METRICS, samples))


def slow_parts(run: host_status.Run) -> dict[str, Any]:
    """Return the slow parts of the host's status, at most an hour old."""
    if SLOW.exists() and 0 <= time.time() - SLOW.stat().st_mtime < SLOW_AGE:
        return json.loads(SLOW.read_text())
    found = host_status.slow_status(run)
    write(SLOW, json.dumps(found))
    return found


Samples = dict[str, list[tuple[dict[str, str], float]]]


def app_samples(app: dict[str, Any]) -> Samples:
    """Return the samples of an app's metrics."""
    own = {"app": app["app"]}
    release = own | {name: app[name] for name in ("release", "commit", "slot")}
    since = [timegm(time.strptime(app["since"], TIME))] if app["since"] else []
    return {
        "app_healthy": [(own, app["healthy"])],
        "app_release_info": [(release, 1)],
        "app_release_timestamp_seconds": [(own, moment) for moment in since],
        "app_maintenance": [(own, app["maintenance"])],
    }


def host_samples(host: dict[str, Any]) -> Samples:
    """Return the samples of the host's metrics."""
    services = host["memory"]["services"]
    return {
        "unit_down": [({"unit": unit}, 1) for unit in host["units"]],
        "service_memory_bytes": [({"unit": one["unit"]}, one["used"] * 2**20) for one in services],
        "service_memory_limit_bytes": [
            ({"unit": one["unit"]}, one["limit"] * 2**20) for one in services if one["limit"]
        ],
        "security_updates": [
            ({}, number) for number in [host["updates"]["security"]] if number >= 0
        ],
        "restarts_pending": [({}, len(host["restarts"]))],
        "reboot_pending": [({}, "reboot" in host["restarts"])],
        "bans": [({"jail": jail}, number) for jail, number in host["bans"].items()],
        "failed_logins": [({}, host["failed_logins"]["attempts"])],
        "status_timestamp_seconds": [({}, host["time"])],
    }


def metrics_text(helps: dict[str, str], samples: Samples) -> str:
    """Return samples in the text format of Prometheus."""
    lines = []
    for name, values in samples.items():
        full = f"flaskstack_{name}"
        lines += [f"# HELP {full} {helps[name]}", f"# TYPE {full} gauge"]
        for labels, value in values:
            inner = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
            lines.append(f"{full}{{{inner}}} {int(value)}" if inner else f"{full} {int(value)}")
    return "\n".join([*lines, ""])


def escaped(text: str) -> str:
    """Return a label's value in the text format."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# Keys of an app's status that the table shows.
SHOWN = ("release", "settings", "slot", "since", "by", "commit", "health", "deploy", "hint")


def status_table(app_name: str, app: dict[str, Any], host: dict[str, Any], found: list[str]) -> str:
    """Return the status of an app and its host as text."""
    rows = [[app_name, "no release on this host"]]
    if app:
        rows = [[app_name, "healthy" if app["healthy"] else "UNHEALTHY"]]
        shown = app | {"since": host_status.since_text(app["since"], host["time"])}
        rows += [[name, shown[name]] for name in SHOWN if app[name]]
        rows += [["maintenance", "on: requests get a 503"]] if app["maintenance"] else []
        rows += [[unit, state] for unit, state in app["units"].items()]
    rows += [list(pair) for pair in host_status.host_texts(host).items()]
    rows += [["versions", ", ".join(" ".join(pair) for pair in host["versions"].items())]]
    rows += [["PROBLEM", text] for text in found]
    return table(rows)
