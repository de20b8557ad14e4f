"""One screen about all hosts of an inventory, from their status and a check of site.yml."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "roles/release/files"))

from flaskstack.history import table
from flaskstack.host_status import counted, host_texts, since_text

LONGEST = 200  # characters of an error message
Drift = Mapping[str, Any]  # `hosts`: changed tasks of each host; `error`: why there are none


def site_drift(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `site.yml --check` would change on each host.

    `result` is that of the command, with the output of the callback ansible.posix.json. A run that
    failed, such as for an invalid setting, is an `error`.
    """
    output = result.get("stdout", "")
    try:
        found = json.loads(output[output.index("{") :])
    except ValueError:
        lines = f"{result.get('stderr', '')}\n{output}".strip().splitlines() or ["no output"]
        errors = [line for line in lines if "ERROR" in line]
        return {"hosts": {}, "error": (errors or lines)[0][:LONGEST]}
    hosts: dict[str, list[str]] = {host: [] for host in found["stats"]}
    error = ""
    for play in found["plays"]:
        for task in play["tasks"]:
            for host, outcome in task["hosts"].items():
                if outcome.get("changed") and not outcome.get("action", "").endswith("debug"):
                    hosts.setdefault(host, []).append(task["task"]["name"])
                if outcome.get("failed") and not outcome.get("unreachable"):
                    message = str(outcome.get("msg", "")).strip()
                    error = error or f"{host}: {task['task']['name']}: {message}"[:LONGEST]
    failed = any(stats["failures"] for stats in found["stats"].values())
    if failed or any(stats.get("unreachable") for stats in found["stats"].values()):
        # The run ended early: hosts without a change were not checked to the end.
        hosts = {host: changed for host, changed in hosts.items() if changed}
    return {"hosts": hosts, "error": error if failed else ""}


def status_report(states: Mapping[str, Mapping[str, Any]], drift: Drift) -> dict[str, Any]:
    """Return the status of all hosts for scripts; the screen has the same content.

    `states` are the results of the call `status`. `drift` is empty if it was not checked.
    """
    hosts = {}
    for host, state in states.items():
        if "host" not in state:
            reason = "is unreachable" if state.get("unreachable") else _reason(state)
            hosts[host] = {"problems": [reason]}
        else:
            hosts[host] = {name: state[name] for name in ("app", "host", "problems")}
        changed = (drift.get("hosts") or {}).get(host)
        if changed is not None and "host" in state:
            hosts[host]["drift"] = changed
            if changed:
                tasks = counted(len(changed), "task")
                problem = f"site.yml would change {tasks}: {_first(changed)}"
                hosts[host]["problems"] = [*hosts[host]["problems"], problem]
    releases = {one["app"]["release"] for one in hosts.values() if one.get("app")}
    problems = [f"{host}: {text}" for host, one in hosts.items() for text in one["problems"]]
    if len(releases) > 1:
        problems.insert(0, f"different releases are active: {', '.join(sorted(releases))}")
    if drift.get("error"):
        problems.append(f"site.yml --check failed: {drift['error']}")
    return {"hosts": hosts, "problems": problems}


def _reason(state: Mapping[str, Any]) -> str:
    message = str(state.get("msg", "")).strip() or "the play ended early"
    return f"has no status: {message.splitlines()[0][:LONGEST]}"


def _first(tasks: list[str]) -> str:
    """Return the first tasks of a list."""
    shown = list(dict.fromkeys(tasks))[:3]
    return ", ".join(shown) + (" …" if len(tasks) > len(shown) else "")


def status_screen(report: Mapping[str, Any]) -> str:
    """Return the report as text: problems first, then one row per host, then versions."""
    hosts, problems = report["hosts"], report["problems"]
    count = counted(len(hosts), "host")
    head = f"{count}, {counted(len(problems), 'problem')}"
    lines = [head if problems else f"{count}, no problems", *(f"  ! {text}" for text in problems)]
    known = {host: one for host, one in hosts.items() if "host" in one}
    apps = [["release", "on", "", "since", "by", "commit"]]
    apps += [_release(host, one) for host, one in known.items() if one["app"]]
    rows = [_row(host, one) for host, one in known.items()]
    if len(apps) > 1:
        lines += ["", table(apps)]
    if rows:
        header = ["host", *_texts(next(iter(known.values()))), "drift"]
        kept = [i for i, name in enumerate(header) if name not in RARE or _used(rows, i)]
        lines += ["", table([[row[i] for i in kept] for row in [header, *rows]])]
        lines += ["", table(_versions(known))]
    return "\n".join(lines)


RARE = ("certificate", "backup", "replication")  # columns that are left out if no host has them


def _used(rows: list[list[str]], column: int) -> bool:
    return any(row[column] != "-" for row in rows)


def _release(host: str, one: Mapping[str, Any]) -> list[str]:
    app = one["app"]
    healthy = "healthy" if app["healthy"] else "UNHEALTHY"
    since = since_text(app["since"], one["host"]["time"])
    return [app["release"] or "none", host, healthy, since, app["by"] or "-", app["commit"] or "-"]


def _texts(one: Mapping[str, Any]) -> dict[str, str]:
    """Return the short texts of a host. The names of its units are among the problems."""
    units = one["host"]["units"]
    return host_texts(one["host"]) | {"units": f"{len(units)} down" if units else "ok"}


def _row(host: str, one: Mapping[str, Any]) -> list[str]:
    drift = one.get("drift")
    changed = "not checked" if drift is None else str(len(drift)) if drift else "none"
    return [host, *_texts(one).values(), changed]


def _versions(known: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a table of versions, with one row for hosts that have the same."""
    names = list(dict.fromkeys(name for one in known.values() for name in one["host"]["versions"]))
    groups: dict[tuple[str, ...], list[str]] = {}
    for host, one in known.items():
        versions = tuple(one["host"]["versions"].get(name, "-") for name in names)
        groups.setdefault(versions, []).append(host)
    return [["host", *names], *([", ".join(hosts), *texts] for texts, hosts in groups.items())]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "site_drift": site_drift,
            "status_report": status_report,
            "status_screen": status_screen,
        }
