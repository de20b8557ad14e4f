"""What a fleet runs, ran and may go back to, from what its hosts say of themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "roles/release/files"))

from flaskstack.environment import name as environment_name

# What the tasks of role release register, each with the release that serves after it.
LATEST_FIRST = ("__release_left", "__release_switched", "__release_state")
State = Mapping[str, Any]  # as module `release_state` returns it


def compared(
    state: State, release: Mapping[str, Any], settings: str, python: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a host's state with what it means for a release that is put in use with settings.

    A new release has a `lock_hash`, and runs on `python`. Adds `environment` (name of the one that
    the release needs), and whether it is `complete`, the release `shipped` with it, and whether it
    `serves` with these settings and all that belongs to it.
    """
    own = state["environments"].get(release["id"], "")
    environment = own  # a release of before: what it was shipped with
    if release.get("lock_hash") and python:
        environment = environment_name(release["lock_hash"], python["executable"])
    installed = environment in state["installed"]
    shipped = installed and own == environment
    now = (state["current"], state["settings"])
    serves = shipped and state["settled"] and now == (release["id"], settings)
    new = {"environment": environment, "complete": installed, "shipped": shipped, "serves": serves}
    return {**state, **new}


def settings_before(state: State, release: str) -> str:
    """Return the settings that a release of before is put in use with again.

    Those that it served with last; of the one that serves, those before the present ones. Where
    they are not on the host any more, such as after a rotation of secrets, the present ones.
    """
    present = (state["current"], state["settings"])
    found = [
        entry.get("settings", "")
        for entry in state["history"]
        if entry["release"] == release and (release, entry.get("settings")) != present
    ]
    known = [name for name in found if name in state["sets"]]
    return known[-1] if known else state["settings"]


def rollback_target(states: Mapping[str, State]) -> str:
    """Return the release that the fleet served before; empty when there is none.

    Where a rollout stopped half way, that is the release it was to replace; where a rollback did,
    the one it was to. A rollback is no step forward: after one, the next goes further back. Where
    only settings changed, it is the release that serves: see `settings_before`.
    """
    serving = {state["current"] for state in states.values()}
    histories = sorted((state["history"] for state in states.values()), key=_last, reverse=True)
    latest = histories[0][-1] if histories and histories[0] else {}
    if len(serving) > 1 and latest.get("action") == "rollback":
        return latest["release"]
    for history in histories:
        before, settings = _before(history)
        if before and (serving != {before} or settings != history[-1].get("settings", "")):
            return before
    return ""


def _last(history: list[Mapping[str, str]]) -> str:
    return history[-1]["time"] if history else ""


def _before(history: list[Mapping[str, str]]) -> tuple[str, str]:
    """Return what a host served before what it serves now, without what was taken back.

    That is a release and its settings; both are empty when there is none.
    """
    served: list[tuple[str, str]] = []
    for entry in history:
        now = (entry["release"], entry.get("settings", ""))
        previous = (entry.get("previous", ""), entry.get("previous_settings", ""))
        if previous[0] and (not served or served[-1] != previous):
            served.append(previous)  # the history was cut, or something else was started by hand
        if entry.get("action") == "rollback" and now in served:
            del served[len(served) - 1 - served[::-1].index(now) :]
        if served[-1:] != [now]:
            served.append(now)
    return served[-2] if len(served) > 1 else ("", "")


def release_refusals(states: Mapping[str, State], release: str) -> list[str]:
    """Say which hosts do not have a release, and what they have."""
    return [
        f"{host} has no release {release}; there are: {', '.join(state['releases']) or 'none'}"
        for host, state in states.items()
        if release not in state["releases"]
    ]


def leaving_releases(states: Mapping[str, State], release: str) -> dict[str, str]:
    """Return the hosts that serve another release than this one, with that."""
    return {
        host: state["current"]
        for host, state in states.items()
        if state["current"] not in ("", release)
    }


def serving_releases(variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each release in use, with the hosts that run it.

    `variables` are hosts' variables: what the release's tasks registered last is what counts. A
    host that was not asked yet is left out.
    """
    hosts: dict[str, list[str]] = {}
    for host, known in variables.items():
        answers = [known.get(name) or {} for name in LATEST_FIRST]
        release = next((answer["current"] for answer in answers if "current" in answer), None)
        if release is not None:
            hosts.setdefault(release or "nothing", []).append(host)
    return [f"{release} serves on {', '.join(names)}" for release, names in hosts.items()]


def release_table(states: Mapping[str, State]) -> str:
    """Return what is on each host, which serves, since when, from where and by whom."""
    rows = [["host", "release", "serves", "last put in use", "commit", "by"]]
    for host, state in states.items():
        last = {entry["release"]: entry for entry in state["history"]}
        for release in state["releases"] or ["none"]:
            entry = last.get(release, {})
            serves = f"in slot {state['slot']}" if release == state["current"] else ""
            texts = [entry.get(key) or "-" for key in ("time", "commit", "by")]
            rows.append([host, release, serves, *texts])
            host = ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "compared": compared,
            "settings_before": settings_before,
            "leaving_releases": leaving_releases,
            "release_refusals": release_refusals,
            "release_table": release_table,
            "rollback_target": rollback_target,
            "serving_releases": serving_releases,
        }
