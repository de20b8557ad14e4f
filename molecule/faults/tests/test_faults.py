"""Each fault, injected under load: what users see, for how long, and that everything recovers."""

from __future__ import annotations

import json
import re
import time
from fnmatch import fnmatchcase
from math import ceil

import pytest

from helpers.clients import journal, live_web
from helpers.faults import FAULTS, HEALTHY, PRELUDE, measure
from helpers.repository import ROOT
from helpers.wait import wait_for

UNITS = (
    *("nginx", "mariadb", "redis-server@sample-cache", "redis-server@sample-queue"),
    *("sample-worker@1", "sample-scheduler@1"),
)
RESTART = str(ROOT / "molecule/shared/restart.yml")
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
BOUNDED = "timeout 90 sh -c %s"
ALERTED = 30  # seconds after a fault: the metrics about app and host are written every 15 s
COUNTED = 120  # seconds until the job of a note is done: RQ and the scheduler find lost jobs
QUIET = 3  # seconds without a failed request, after which no worker process rejects requests


@pytest.fixture
def recovered(host, site, load):
    """Return a function that waits until all units run, and until the site is ready and writes."""

    def recovered(ended, seconds):
        def healthy():
            if any(answer.failed for answer in load.within(load.now() - QUIET, load.now())):
                return False
            units = f"systemctl is-active {' '.join(UNITS)} {live_web(host, 'sample')}"
            written = any(
                answer.method == "POST" and not answer.failed and answer.start >= ended
                for answer in list(load.answers)
            )
            states = set(host.run(units).stdout.split())
            return written and states == {"active"} and site.get("/readyz").status_code == 200

        wait_for(healthy, seconds)
        return load.now() - ended

    return recovered


@pytest.fixture
def inject(host, operator):
    """Return a function that injects a fault."""

    def inject(fault):
        if fault.server:
            done = operator.play(RESTART, server_tasks=fault.server)
            assert done.code == 0, done.output
        else:
            host.check_output(BOUNDED, PRELUDE + fault.inject)

    return inject


@pytest.fixture
def prepared(host, load, recovered, fault):
    """Prepare the host for a fault, and clean up afterwards."""

    def run(script):
        if script:
            host.check_output(BOUNDED, PRELUDE + script)
            recovered(load.now(), fault.recovers)

    run(fault.prepare)
    yield
    run(fault.clean_up)


@pytest.fixture
def observe(host, load, inject, recovered, diagnostics, results, windows):
    """Return a function that injects a fault and returns what users saw."""

    def observe(fault):
        since = host.check_output("date '+%F %T'")
        begin, began, answer = load.now(), time.time(), ""
        with load.during(fault.name):
            try:
                inject(fault)
                if fault.path:
                    answer = str(diagnostics("GET", fault.path).status_code)
                time.sleep(fault.lasts)  # the duration of the fault
            finally:
                if fault.end:
                    host.check_output(BOUNDED, PRELUDE + fault.end)
            after = recovered(load.now(), fault.recovers)
            end = load.now()
        due = int(end * load.rate) - ceil(begin * load.rate)
        wait_for(lambda: len(load.within(begin, end)) >= due, load.timeout + 5)
        lines = journal(host, *fault.units, since=since) if fault.units else []
        logged = next((line for line in lines if fault.log and re.search(fault.log, line)), "")
        measured = measure(fault, load.within(begin, end), after, logged, answer)
        expected = HEALTHY | fault.seen
        print(*(a for a in load.within(begin, end) if a.outcome not in expected), sep="\n")
        results[fault.name] = measured
        windows[fault.name] = began, time.time()
        return measured

    return observe


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("fault", [one for one in FAULTS if not one.server], ids=str, indirect=True)
def test_fault(observe, fault):
    assert observe(fault).problems == []


def test_killed_services_were_reported(host):
    reports = host.check_output("cat /run/failures").splitlines()
    if int(host.check_output("systemctl --version | awk 'NR == 1 { print $2 }'")) < 254:
        pytest.skip("before systemd 254, OnFailure= ignores a unit that restarts")
    killed = ("mariadb", "nginx", "redis-server@sample-queue", "sample-worker@1")
    assert {f"{unit}.service signal" for unit in killed} <= set(reports)
    assert len(reports) == len({line.split()[0] for line in reports}), "one per unit and hour"
    entry = "mariadb.service: was killed with signal KILL"
    assert journal(host, "flaskstack-failure@*", grep=lambda line: entry in line)


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.server], ids=str, indirect=True)
def test_restart_of_the_host(observe, fault):
    assert observe(fault).problems == []


def test_units_start_in_order_and_soon_after_a_power_cut(host):
    """The database and Redis are up before the app and its worker."""

    def started(unit):
        """Return how many seconds after the start of the host a unit was active."""
        show = "systemctl show --value --property"
        active = int(host.check_output(f"{show} ActiveEnterTimestampMonotonic {unit}"))
        return (active - int(host.check_output(f"{show} UserspaceTimestampMonotonic"))) / 1e6

    first = max(started(f"{unit}.service") for unit in UNITS[1:4])
    last = [started(live_web(host, "sample")), started("sample-worker@1.service")]
    assert first <= min(last)
    assert max(last) < 30


def test_no_unit_stays_failed(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_every_acknowledged_write_is_there_once(finished, sql):
    rows = finished.rows(row[0] for row in sql.rows(f"USE sample; {finished.statement}"))
    assert rows.acknowledged > 100
    assert (rows.lost, rows.doubled) == ([], [])


def test_every_acknowledged_job_is_done(finished, sql):
    """The job of a note counts its words; a second run of it changes nothing."""
    waiting = f"SELECT COUNT(*) FROM sample.notes WHERE body LIKE '{finished.run} %' AND word_count"
    wait_for(lambda: sql.value(f"{waiting} IS NULL") == "0", COUNTED, every=2)
    assert sql.value(f"{waiting} <> 2") == "0"


@pytest.fixture(scope="module")
def alerts(host, windows):
    """Return the labels and times of all alerts of Prometheus, pending ones included."""
    began, ended = min(windows.values())[0], max(windows.values())[1] + ALERTED
    wait_for(lambda: time.time() > ended, ALERTED + 1)
    url = f"http://127.0.0.1:9090/api/v1/query_range?query=ALERTS&start={began}&end={ended}&step=1"
    return json.loads(host.check_output("python3 -c %s %s", FETCH, url))["data"]["result"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.alerts], ids=str)
def test_alerts_fire(windows, alerts, fault):
    """An alert that waits for a longer fault is pending."""
    if fault.name not in windows:
        pytest.skip("the fault was not injected")
    began, ended = windows[fault.name]
    seen = [
        series["metric"]
        for series in alerts
        if any(began < moment < ended + ALERTED for moment, _ in series["values"])
    ]
    for alert in fault.alerts:
        name, label, pattern = re.fullmatch(r"(\w+)(?:{(\w+)=(.+)})?", alert).groups()
        same = [one for one in seen if one["alertname"] == name]
        assert any(not label or fnmatchcase(one[label], pattern) for one in same), (alert, seen)
