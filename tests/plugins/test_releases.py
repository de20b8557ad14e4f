"""Which release a fleet goes back to, and what it is told of itself."""

from __future__ import annotations

import pytest

from releases import (
    compared,
    leaving_releases,
    release_refusals,
    release_table,
    rollback_target,
    serving_releases,
)


def state(*steps, releases=(), current=None):
    """Return a host's state after `steps`: a release that was deployed, or `<release` gone back."""
    history, serves = [], ""
    for number, step in enumerate(steps):
        release = step.removeprefix("<")
        history.append(
            {
                "time": f"2026-11-21T10:00:{number:02}Z",
                "release": release,
                "previous": serves,
                "commit": f"c{release}",
                "by": "ada@desk",
                "action": "rollback" if release != step else "deploy",
            }
        )
        serves = release
    return {
        "current": serves if current is None else current,
        "slot": "a",
        "history": history,
        "releases": list(releases) or sorted({step.removeprefix("<") for step in steps}),
    }


@pytest.mark.parametrize(
    ("steps", "before"),
    [
        ("", ""),
        ("1", ""),
        ("1 2", "1"),
        ("1 2 3", "2"),
        ("1 2 3 <2", "1"),
        ("1 2 3 <2 <1", ""),
        ("1 2 3 <1", ""),
        ("1 2 3 <2 3", "2"),
        ("1 2 3 <2 4", "2"),
        ("1 2 1", "2"),
        ("1 2 1 <2", "1"),
        ("1 2 2", "1"),
    ],
)
def test_back_is_to_what_served_before(steps, before):
    assert rollback_target({"a": state(*steps.split()), "b": state(*steps.split())}) == before


def test_a_rollout_that_stopped_goes_back_to_what_it_was_to_replace():
    assert rollback_target({"a": state("1", "2", "3"), "b": state("1", "2")}) == "2"
    assert rollback_target({"a": state("1", "2"), "b": state("1", "2", "3")}) == "2"


def test_what_serves_everywhere_is_nothing_to_go_back_to():
    assert rollback_target({"a": state("1", "2", current="1")}) == ""


def test_a_rollback_that_stopped_goes_on():
    states = {"a": state("1", "2", "3", "<2"), "b": state("1", "2", "3")}
    assert rollback_target(states) == "2"


def test_a_host_that_came_later_knows_less():
    assert rollback_target({"old": state("1", "2"), "new": state("2")}) == "1"
    late = state("2")
    late["history"][0]["time"] = "2026-11-22T10:00:00Z"
    assert rollback_target({"new": late, "old": state("1", "2")}) == "1"


def test_hosts_without_a_release_are_named_with_what_they_have():
    states = {"a": state("1", "2"), "b": state("2"), "c": state()}
    assert release_refusals(states, "1") == [
        "b has no release 1; there are: 2",
        "c has no release 1; there are: none",
    ]
    assert release_refusals({"a": state("1", "2")}, "1") == []


def test_which_releases_give_way():
    states = {"a": state("1", "2"), "b": state("1"), "c": state()}
    assert leaving_releases(states, "1") == {"a": "2"}


def test_which_hosts_run_which_release():
    before = {"__release_state": {"current": "1"}}
    variables = {
        "a": before | {"__release_switched": {"current": "2"}},
        "b": before | {"__release_switched": {"skipped": True}},
        "c": before | {"__release_switched": {"failed": True, "current": "2"}},
        "d": {"__release_state": {"current": ""}},
        "e": {},
    }
    variables["c"]["__release_left"] = {"current": "1"}
    assert serving_releases(variables) == [
        "2 serves on a",
        "1 serves on b, c",
        "nothing serves on d",
    ]


NEW = {"id": "2", "lock_hash": "abc"}
PYTHON = {"executable": "/usr/bin/python3.13", "version": "3.13.5"}
ENVIRONMENT = "4d4e0f861333-python3.13"


def looked(**differences):
    there = {"current": "2", "settled": True, "installed": [ENVIRONMENT], "python": PYTHON}
    return there | {"environments": {"2": ENVIRONMENT}} | differences


@pytest.mark.parametrize(
    ("there", "complete", "shipped", "serves"),
    [
        (looked(), True, True, True),
        (looked(settled=False), True, True, False),
        (looked(current="1"), True, True, False),
        (looked(environments={"2": "other"}), True, False, False),
        (looked(environments={}), True, False, False),
        (looked(installed=["other"]), False, False, False),
        (looked(python=PYTHON | {"executable": "/opt/bin/python3"}), False, False, False),
    ],
)
def test_a_host_has_a_release_with_its_environment_or_lacks_it(there, complete, shipped, serves):
    found = compared(there, NEW)
    assert (found["complete"], found["shipped"], found["serves"]) == (complete, shipped, serves)
    assert (found["environment"] == ENVIRONMENT) == (there["python"] == PYTHON)
    assert found["current"] == there["current"]


def test_a_release_of_before_keeps_the_environment_that_it_was_shipped_with():
    found = compared(looked(python={}), {"id": "2"})
    assert (found["environment"], found["serves"]) == (ENVIRONMENT, True)
    assert not compared(looked(python={}), {"id": "1"})["shipped"]


def test_the_table_says_what_is_there_what_serves_since_when_and_from_where():
    states = {"app-1": state("1", "2", releases=["2", "1", "0"]), "app-2": state()}
    lines = [line.split() for line in release_table(states).splitlines()]
    assert lines[2:] == [
        ["app-1", "2", "in", "slot", "a", "2026-11-21T10:00:01Z", "c2", "ada@desk"],
        ["1", "2026-11-21T10:00:00Z", "c1", "ada@desk"],
        ["0", "-", "-", "-"],
        ["app-2", "none", "-", "-", "-"],
    ]
