"""The faults of scenario `faults`: valid scripts, correct measurements, and a complete page."""

from __future__ import annotations

import re
import subprocess

import pytest

from helpers.faults import FAULTS, PRELUDE, Fault, longest_outage, measure, table
from helpers.load import PAGES, Answer
from helpers.repository import ROOT

PAGE = (ROOT / "docs/faults.md").read_text()
PAGE_OF_DATABASE, OTHER = PAGES.index("/"), PAGES.index("/whoami")


def answers(outcomes, kind=PAGE_OF_DATABASE, every=0.5, method="GET"):
    """Return answers to requests of one kind, one per half second."""
    return [
        Answer(kind + position * len(PAGES), method, position * every, 0, 0.01, outcome)
        for position, outcome in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["200"] * 4, 0),
        (["200", "503", "200"], 0.5),
        (["200", "503", "refused", "503", "200", "503", "200"], 1.5),
        (["503", "503", "503"], 1),  # it had not ended
        ([], 0),
    ],
)
def test_longest_outage(outcomes, expected):
    assert longest_outage(answers(outcomes)) == expected


def test_outage_of_pages_with_a_database_counts_while_others_answer():
    mixed = answers(["503"] * 4 + ["200"]) + answers(["200"] * 5, OTHER)
    assert longest_outage(mixed) == 2
    writes = answers(["303", "503", "503", "303"], OTHER, method="POST")
    assert longest_outage(answers(["200"] * 4, OTHER) + writes) == 1


FAULT = Fault(name="a fault", inject=":", by="itself", seen=frozenset({"503"}), failed=2, outage=1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"outcomes": ["503", "502"]}, "outcomes ['502']"),
        ({"outcomes": ["503", "200"] * 3}, "3 requests failed"),
        ({"outcomes": ["200", "503", "503", "503", "200"]}, "an outage of 1.5 s"),
        ({"log": "crashed"}, "nothing logged 'crashed'"),
        ({"path": "/slow"}, "/slow answered 200"),
        ({"slowest": 0.001}, "an answer took 0.0 s"),
    ],
)
def test_problems(changes, problem):
    settings = {"seen": FAULT.seen, "failed": FAULT.failed, "outage": FAULT.outage} | changes
    outcomes = settings.pop("outcomes", ["200", "503", "200"])
    fault = Fault(name="a fault", inject=":", by="itself", **settings)
    found = measure(fault, answers(outcomes), 1.0, "", "200").problems
    assert problem in found if problem else found == []


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if not fault.skip], ids=str)
def test_scripts_are_valid(fault):
    for script in (fault.needs, fault.prepare, fault.inject, fault.end, fault.clean_up):
        command = ["shellcheck", "--shell=sh", "--severity=warning", "-"]
        done = subprocess.run(
            command, input=f"{PRELUDE}{script}", text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout
    assert not fault.log or re.compile(fault.log)
    assert not fault.log or fault.units
    assert bool(fault.needs) == bool(fault.lacks)


def test_a_fault_that_is_not_injected_has_a_reason():
    injected = [fault for fault in FAULTS if fault.inject or fault.server]
    assert [fault.name for fault in FAULTS if not (fault in injected or fault.skip)] == []


def test_table_has_results_and_reasons():
    fault = FAULTS[0]
    log = "main process exited, code=killed, status=9/KILL"
    row = table([measure(fault, answers(["200", "503"]), 2.5, log)]).splitlines()[2]
    assert row.startswith(f"| {fault.name} | 1 of 2 (503: 1) | 0.0 s | 0.0 s | 2.5 s | ")
    assert row.endswith(" | `status=9/KILL` | UnitRestarted |")


def test_alerts_exist_and_have_the_time_that_they_wait():
    rows = table([])
    assert "| RedisDown after 1m |" in rows


def test_page_has_all_faults():
    rows = re.search("<!-- figures -->\n(.*?)<!-- /figures -->", PAGE, re.DOTALL)[1].splitlines()
    names = [row.split(" | ")[0].strip("| ") for row in rows[2:]]
    assert names == [fault.name for fault in FAULTS]
