"""Active, previous and installed releases of all hosts, from their states."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "roles/release/files"))

from flaskstack.environment import name as environment_name
from flaskstack.history import rollback_settings, rollback_target, table

# Variables that tasks of role release register, each with the resulting active release.
LATEST_FIRST = ("__release_rolled_back", "__release_switched", "__release_state")
State = Mapping[str, Any]  # result of the call `gather`
DATABASE = re.compile("(postgres|mysql|mariadb|mssql|oracle|cockroachdb|mongodb)[a-z0-9+]*://")


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
    environment = own  # a rollback keeps it
    if release.get("lock_hash") and python:
        environment = environment_name(release["lock_hash"], python["executable"])
    has_environment = environment in state["installed"]
    is_installed = has_environment and own == environment
    active = (state["current"], state["settings"]) == (release["id"], settings)
    return {
        **state,
        "environment": environment,
        "has_environment": has_environment,
        "is_installed": is_installed,
        "is_active": is_installed and active and state["settled"],
    }


def host_pythons(
    hosts: Iterable[str], variables: Mapping[str, Mapping[str, Any]], name: str
) -> dict[str, dict[str, str]]:
    """Return version, machine and executable of interpreter `name` of each host, from its facts.

    The version is empty if the facts do not contain it.
    """
    pythons = {}
    for host in hosts:
        facts = variables[host].get("ansible_facts", {})
        own = facts.get("python", {}).get("version", {})
        version = name if re.fullmatch(r"3\.\d+", name) else ""
        if name == "python3" and own:
            version = f"{own['major']}.{own['minor']}.{own['micro']}"
        machine = facts.get("architecture", "")
        pythons[host] = {"version": version, "machine": machine, "executable": ""}
    return pythons


def rollback_problems(states: Mapping[str, State], release: str) -> list[str]:
    """Return why a rollback to a release is impossible: the hosts that lack it."""
    if not release:
        return ["There is no previous release to roll back to. playbooks/releases.yml lists all"]
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


def fleet_serves(states: Mapping[str, State], group: Iterable[str]) -> bool:
    """Return whether any host has or had a release. A host outside this run may have one."""
    has_served = any(state["current"] or state["history"] for state in states.values())
    return has_served or not set(group) <= states.keys()


def foreign_databases(environment: Mapping[str, Any], own: str) -> list[str]:
    """Return the variables with the URL of a database server other than the app's `own`."""
    return [k for k, value in environment.items() if value != own and DATABASE.match(str(value))]


def active_releases(variables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence with each active release and its hosts.

    `variables` are the variables of the hosts. The result that role release registered last counts.
    A host without a result is omitted.
    """
    hosts: dict[str, list[str]] = {}
    for host, known in variables.items():
        results = [known.get(name) or {} for name in LATEST_FIRST]
        release = next((result["current"] for result in results if "current" in result), None)
        if release is not None:
            hosts.setdefault(release or "no release", []).append(host)
    active = [f"{release} is active on {', '.join(names)}" for release, names in hosts.items()]
    return "; ".join(active) + "." if active else "Nothing was changed."


def release_report(
    state: State, release: str, check_mode: bool, migration: Mapping[str, Any] | None = None
) -> str:
    """Return the report of a deploy on a host; `migration` is the result of the call `migrate`."""
    if state["is_active"]:
        return f"No change: {release} is already active"
    verb = "would replace" if check_mode else "replaced"
    report = [f"{release} {verb} {state['current'] or 'nothing'}"]
    if dump := (migration or {}).get("dump_file"):
        report.append(f"Dump of the database before the migration: {dump}")
    if undo := (migration or {}).get("undo"):
        report.append(undo)
    if note := (migration or {}).get("note"):
        report.append(f"app_first_install_commands were not run, and will not be: {note}")
    return ". ".join(report)


def post_deploy_failure(
    results: Iterable[Mapping[str, Any]], release: str, app: str, secrets: Iterable[str]
) -> str:
    """Return the message about the failed command of app_post_deploy_commands, without secrets."""
    failed = next(result for result in results if result.get("failed"))
    output = "\n".join([*failed.get("stdout_lines", []), *failed.get("stderr_lines", [])][-20:])
    for secret in secrets:
        output = output.replace(str(secret), "********")
    return (
        f"{release} is active, but app_post_deploy_commands failed: {failed['item']}\n"
        "They are not run again for this release. To run them manually: "
        f"sudo flaskstack {app} run sh -c '…'\nIts last output:\n{output}"
    )


def release_table(states: Mapping[str, State]) -> str:
    """Return a table of each host's releases: active, time, source and author."""
    rows = [["host", "release", "active", "last activated", "commit", "by"]]
    for host, state in states.items():
        last = {entry["release"]: entry for entry in state["history"]}
        for release in state["releases"] or ["none"]:
            entry = last.get(release, {})
            active = f"in slot {state['slot']}" if release == state["current"] else ""
            texts = [entry.get(key) or "-" for key in ("time", "commit", "by")]
            rows.append([host, release, active, *texts])
            host = ""
    return table(rows)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "active_releases": active_releases,
            "fleet_serves": fleet_serves,
            "foreign_databases": foreign_databases,
            "host_pythons": host_pythons,
            "hosts_to_switch": hosts_to_switch,
            "plan_release": plan_release,
            "post_deploy_failure": post_deploy_failure,
            "release_report": release_report,
            "release_table": release_table,
            "rollback_problems": rollback_problems,
            "rollback_settings": rollback_settings,
            "rollback_target": rollback_target,
        }
