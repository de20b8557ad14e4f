"""Rollback targets, release plans and release tables."""

from __future__ import annotations

import pytest

from flaskstack.environment import name
from releases import (
    active_releases,
    fleet_serves,
    foreign_databases,
    host_pythons,
    hosts_to_switch,
    plan_release,
    post_deploy_failure,
    release_report,
    release_table,
    rollback_problems,
    rollback_settings,
    rollback_target,
)


def state(*steps, releases=(), current=None):
    """Return a host's state after `steps`: `release` for a deploy, `<release` for a rollback.

    `/settings` may follow. The default is the previous settings.
    """
    history, serves, settings = [], "", ""
    for number, step in enumerate(steps):
        release, _, new = step.removeprefix("<").partition("/")
        new = new or settings
        history.append(
            {
                "time": f"2026-11-21T10:00:{number:02}Z",
                "release": release,
                "settings": new,
                "previous": serves,
                "previous_settings": settings if serves else "",
                "commit": f"c{release}",
                "by": "ada@desk",
                "action": "rollback" if step.startswith("<") else "deploy",
            }
        )
        serves, settings = release, new
    return {
        "current": serves if current is None else current,
        "slot": "a",
        "settings": settings,
        "sets": {entry["settings"] for entry in history},
        "history": history,
        "releases": list(releases) or sorted({entry["release"] for entry in history}),
    }


@pytest.mark.parametrize(
    ("steps", "before"),
    [
        ("", ""),
        ("1", ""),
        ("1 2 3", "2"),
        ("1 2 3 <2", "1"),
        ("1 2 3 <2 <1", ""),
        ("1 2 3 <2 3", "2"),
        ("1 2 3 <2 4", "2"),
        ("1 2 1 <2", "1"),
        ("1/x 2/x 2/y", "2"),
        ("1/x 2/x 2/y <2/x", "1"),
        ("1/x 2/x 2/y <2/x <1", ""),
        ("1/x 1/y", "1"),
    ],
)
def test_rollback_target_is_the_previously_active_release(steps, before):
    assert rollback_target({"a": state(*steps.split()), "b": state(*steps.split())}) == before


@pytest.mark.parametrize(
    ("steps", "release", "settings"),
    [
        ("1/x 2/y", "1", "x"),
        ("1/x 2/x 2/y", "2", "x"),
        ("1/x 1/y 2/z", "1", "y"),
        ("1/x 2/y 1/z 2/z", "1", "z"),
        ("1/x 2/y", "2", "y"),
        ("1/gone 2/y", "1", "y"),
    ],
)
def test_rollback_uses_the_settings_of_the_release(steps, release, settings):
    before = state(*steps.split())
    assert rollback_settings(before | {"sets": before["sets"] - {"gone"}}, release) == settings


def test_interrupted_deploy_rolls_back_to_the_replaced_release():
    assert rollback_target({"a": state("1", "2", "3"), "b": state("1", "2")}) == "2"
    assert rollback_target({"a": state("1", "2"), "b": state("1", "2", "3")}) == "2"


def test_release_active_everywhere_is_no_rollback_target():
    assert rollback_target({"a": state("1", "2", current="1")}) == ""


def test_interrupted_rollback_continues():
    states = {"a": state("1", "2", "3", "<2"), "b": state("1", "2", "3")}
    assert rollback_target(states) == "2"


def test_new_host_with_a_short_history_does_not_change_the_target():
    assert rollback_target({"old": state("1", "2"), "new": state("2")}) == "1"
    late = state("2")
    late["history"][0]["time"] = "2026-11-22T10:00:00Z"
    assert rollback_target({"new": late, "old": state("1", "2")}) == "1"


def test_hosts_without_a_release_are_named_with_their_releases():
    states = {"a": state("1", "2"), "b": state("2"), "c": state()}
    assert rollback_problems(states, "1") == [
        "b has no release 1; there are: 2",
        "c has no release 1; there are: none",
    ]
    assert rollback_problems({"a": state("1", "2")}, "1") == []


def test_hosts_to_switch():
    states = {"a": state("1", "2"), "b": state("1"), "c": state()}
    assert hosts_to_switch(states, "1") == {"a": "2"}


def test_active_releases_are_listed_with_their_hosts():
    before = {"__release_state": {"current": "1"}}
    variables = {
        "a": before | {"__release_switched": {"current": "2"}},
        "b": before | {"__release_switched": {"skipped": True}},
        "c": before | {"__release_switched": {"failed": True, "current": "2"}},
        "d": {"__release_state": {"current": ""}},
        "e": {},
    }
    variables["c"]["__release_rolled_back"] = {"current": "1"}
    assert active_releases(variables) == (
        "2 is active on a; 1 is active on b, c; no release is active on d."
    )
    assert active_releases({"e": {}}) == "Nothing was changed."


def test_the_result_of_a_deploy_is_reported():
    migration = {"dump_file": "/dump", "note": "the database has tables"}
    active, other = {"is_active": True}, {"is_active": False, "current": "1"}
    assert release_report(active, "2", False) == "No change: 2 is already active"
    assert release_report(other, "2", True, {"skipped": True}) == "2 would replace 1"
    assert release_report(other, "2", False, {"undo": "No dump"}) == "2 replaced 1. No dump"
    report = release_report(other | {"current": ""}, "2", False, migration)
    assert report.startswith("2 replaced nothing. Dump of the database before the migration: /dump")
    assert report.endswith("were not run, and will not be: the database has tables")


def test_failed_post_deploy_commands_are_shown_without_secrets():
    failed = {"failed": True, "item": "false", "stdout_lines": ["mysql://u:s3cret@h"]}
    results = [{"item": "true"}, failed | {"stderr_lines": [*"x" * 18, "end"]}]
    lines = post_deploy_failure(results, "two", "shop", ["s3cret"]).splitlines()
    assert lines[0].endswith("app_post_deploy_commands failed: false")
    assert lines[3:] == ["mysql://u:********@h", *"x" * 18, "end"]


@pytest.mark.parametrize(
    ("states", "group", "serves"),
    [
        ([state()], ["0"], False),
        ([state()], ["0", "1"], True),
        ([state("1")], ["0"], True),
        ([state("1", current="")], [], True),
    ],
)
def test_a_first_installation_has_no_history_and_includes_all_hosts(states, group, serves):
    assert fleet_serves({str(host): state for host, state in enumerate(states)}, group) is serves


def test_external_databases_are_detected_by_their_url():
    own = "mysql://me@localhost/shop"
    environment = {"OTHER": "postgresql+psycopg://u@db/x", "FILE": "sqlite:///a", "N": 5, "A": own}
    assert foreign_databases(environment, own) == ["OTHER"]


NEW = {"id": "2", "lock_hash": "abc"}
PYTHON = {"executable": "/usr/bin/python3.13", "version": "3.13.5"}
ENVIRONMENT = name("abc", "/usr/bin/python3.13")


def host_state(**differences):
    there = {
        "current": "2",
        "settings": "x",
        "settled": True,
        "installed": [ENVIRONMENT],
        "python": PYTHON,
    }
    return there | {"environments": {"2": ENVIRONMENT}} | differences


@pytest.mark.parametrize(
    ("there", "complete", "shipped", "serves"),
    [
        (host_state(), True, True, True),
        (host_state(settled=False), True, True, False),
        (host_state(current="1"), True, True, False),
        (host_state(settings="y"), True, True, False),
        (host_state(environments={"2": "other"}), True, False, False),
        (host_state(environments={}), True, False, False),
        (host_state(installed=["other"]), False, False, False),
        (host_state(python=PYTHON | {"executable": "/opt/bin/python3"}), False, False, False),
    ],
)
def test_release_needs_its_environment(there, complete, shipped, serves):
    found = plan_release(there, NEW, "x", there["python"])
    assert (found["has_environment"], found["is_installed"], found["is_active"]) == (
        complete,
        shipped,
        serves,
    )
    assert (found["environment"] == ENVIRONMENT) == (there["python"] == PYTHON)
    assert found["current"] == there["current"]


def test_previous_release_keeps_its_environment():
    found = plan_release(host_state(), {"id": "2"}, "x")
    assert (found["environment"], found["is_active"]) == (ENVIRONMENT, True)
    assert not plan_release(host_state(), {"id": "1"}, "x")["is_installed"]


def test_release_table():
    states = {"app-1": state("1", "2", releases=["2", "1", "0"]), "app-2": state()}
    lines = [line.split() for line in release_table(states).splitlines()]
    assert lines[2:] == [
        ["app-1", "2", "in", "slot", "a", "2026-11-21T10:00:01Z", "c2", "ada@desk"],
        ["1", "2026-11-21T10:00:00Z", "c1", "ada@desk"],
        ["0", "-", "-", "-"],
        ["app-2", "none", "-", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("name", "version"),
    [("3.11", "3.11"), ("python3", "3.13.5"), ("python3.12", ""), ("/opt/x/bin/python3", "")],
)
def test_python_version_comes_from_facts_if_possible(name, version):
    facts = {
        "architecture": "aarch64",
        "python": {"version": {"major": 3, "minor": 13, "micro": 5}},
    }
    hosts = {"a": {"ansible_facts": facts}, "b": {}}
    found = host_pythons(hosts, hosts, name)
    assert found["a"] == {"version": version, "machine": "aarch64", "executable": ""}
    assert found["b"]["version"] == (version if name == "3.11" else "")
