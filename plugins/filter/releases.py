"""Active, previous and installed releases of all hosts, from their states."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "roles/release/files"))

from flaskstack.environment import name as environment_name
from flaskstack.history import rollback_settings, rollback_target, table

# Variables that tasks of role release register, each with the resulting active release.
LATEST_FIRST = ("__release_rolled_back", "__release_switched", "__release_state")
State = Mapping[str, Any]  # as the call `look` returns it


def plan_release(
    state: State, release: Mapping[str, Any], settings: str, python: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a host's state with the plan for a release and its settings.

    A new release has a `lock_hash` and runs on `python`. Adds `environment` (the name of the
    virtual environment that the release needs), `has_environment` (whether that is installed),
    `is_installed` (whether the release is installed with it), and `is_active` (whether the release
    is active with these settings).
    """
    own = state["environments"].get(release["id"], "")
    environment = own  # of a previous release
    if release.get("lock_hash") and python:
        environment = environment_name(release["lock_hash"], python["executable"])
    installed = environment in state["installed"]
    shipped = installed and own == environment
    now = (state["current"], state["settings"])
    active = shipped and state["settled"] and now == (release["id"], settings)
    new = {
        "environment": environment,
        "has_environment": installed,
        "is_installed": shipped,
        "is_active": active,
    }
    return {**state, **new}


def host_python(facts: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return version, machine and executable of an interpreter from a host's facts.

    The version is empty if the facts do not contain it.
    """
    own = facts.get("python", {}).get("version", {})
    version = ""
    if re.fullmatch(r"3\.\d+", name):
        version = name
    elif name == "python3" and own:
        version = f"{own['major']}.{own['minor']}.{own['micro']}"
    return {"version": version, "machine": facts.get("architecture", ""), "executable": ""}


def missing_releases(states: Mapping[str, State], release: str) -> list[str]:
    """Return the hosts without a release, and their releases."""
    return [
        f"{host} has no release {release}; there are: {', '.join(state['releases']) or 'none'}"
        for host, state in states.items()
        if release not in state["releases"]
    ]


def hosts_to_switch(states: Mapping[str, State], release: str) -> dict[str, str]:
    """Return the hosts on which another release is active, with that release."""
    return {
        host: state["current"]
        for host, state in states.items()
        if state["current"] not in ("", release)
    }


def active_releases(variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each active release, with its hosts.

    `variables` are the variables of the hosts. The result that role release registered last counts.
    A host without a result is omitted.
    """
    hosts: dict[str, list[str]] = {}
    for host, known in variables.items():
        answers = [known.get(name) or {} for name in LATEST_FIRST]
        release = next((answer["current"] for answer in answers if "current" in answer), None)
        if release is not None:
            hosts.setdefault(release or "no release", []).append(host)
    return [f"{release} is active on {', '.join(names)}" for release, names in hosts.items()]


def release_table(states: Mapping[str, State]) -> str:
    """Return a table of each host's releases: active, time, source and author."""
    rows = [["host", "release", "serves", "last put in use", "commit", "by"]]
    for host, state in states.items():
        last = {entry["release"]: entry for entry in state["history"]}
        for release in state["releases"] or ["none"]:
            entry = last.get(release, {})
            serves = f"in slot {state['slot']}" if release == state["current"] else ""
            texts = [entry.get(key) or "-" for key in ("time", "commit", "by")]
            rows.append([host, release, serves, *texts])
            host = ""
    return table(rows)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "plan_release": plan_release,
            "rollback_settings": rollback_settings,
            "hosts_to_switch": hosts_to_switch,
            "host_python": host_python,
            "missing_releases": missing_releases,
            "release_table": release_table,
            "rollback_target": rollback_target,
            "active_releases": active_releases,
        }
