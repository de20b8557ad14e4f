"""A deploy loses no job, runs no job twice, and stops previous workers soon."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from helpers.clients import main_pid
from helpers.wait import wait_for

WORKER = "sample-worker@1.service"
EVERY = 0.1  # seconds between jobs
LONG, LONG_EVERY = 2, 50  # every 50th job takes 2 seconds
# Seconds for which a worker of the previous release may start jobs of the new one. Enough to finish
# its current job, and well below the stop timeout of 60.
SOON = 15


@pytest.fixture
def queue(diagnostics):
    """Return a function that queues one job of some seconds and returns its id."""

    def queue(seconds=0):
        answer = diagnostics("POST", "/jobs", json={"count": 1, "seconds": seconds})
        assert answer.status_code == 202, answer.text
        return f"diagnostic-{answer.json()['batch']}-1"

    return queue


@pytest.fixture
def queueing(queue):
    """Return a context manager that queues jobs at a constant rate; it yields their ids."""

    @contextmanager
    def queueing():
        jobs, stopping = [], threading.Event()

        def submit(pool):
            started = time.monotonic()
            while not stopping.wait(max(0, started + len(jobs) * EVERY - time.monotonic())):
                jobs.append(pool.submit(queue, LONG if len(jobs) % LONG_EVERY == 0 else 0))

        with ThreadPoolExecutor(50) as pool:
            running = threading.Thread(target=submit, args=[pool])
            running.start()
            try:
                yield jobs
            finally:
                stopping.set()
                running.join()

    return queueing


@pytest.fixture
def runs(sql):
    """Return a function that reads the runs since the test began."""
    columns = (
        "job, queued_by, ran_by, UNIX_TIMESTAMP(queued_at), UNIX_TIMESTAMP(started_at), finished_at"
    )
    start = sql.value("SELECT UTC_TIMESTAMP(6)")

    def runs():
        return sql.rows(f"SELECT {columns} FROM sample.runs WHERE queued_at >= '{start}'")

    return runs


def finished(rows):
    """Return the job ids of the finished runs."""
    return [job for job, *_, end in rows if end != "NULL"]


def test_a_worker_finishes_its_job_before_it_is_replaced(host, queue, runs):
    worker = main_pid(host, WORKER)
    job = queue(LONG)
    wait_for(lambda: [row[0] for row in runs()] == [job], 10)
    assert finished(runs()) == [], "the job was too short"
    host.check_output("systemctl restart %s", WORKER)
    assert finished(runs()) == [job]
    assert main_pid(host, WORKER) != worker


def test_deploys_lose_no_job_and_run_no_job_twice(host, operator, version, queueing, runs):
    def current():
        return host.check_output("readlink /srv/sample/current").rsplit("/", 1)[-1]

    releases = [current()]
    with queueing() as jobs:
        for _ in range(2):
            wait_for_more(jobs)
            deploy = operator.deploy(version())
            assert deploy.code == 0, deploy.output
            releases.append(current())
        wait_for_more(jobs)
    queued = {job.result() for job in jobs}
    assert len(set(releases)) == 3
    wait_for(lambda: set(finished(runs())) >= queued, 400)  # a slow host needs time
    rows = runs()
    assert Counter(row[0] for row in rows) == Counter(queued)
    assert {row[1] for row in rows} == {row[2] for row in rows} == set(releases)
    assert stale(rows, releases) <= SOON


def wait_for_more(jobs):
    """Wait until another long job is queued."""
    enough = len(jobs) + LONG_EVERY
    wait_for(lambda: len(jobs) >= enough, 30)


def stale(rows, releases):
    """Return how many seconds an older release kept starting jobs of a newer one."""
    first = {}
    for _job, queued_by, _ran_by, queued, *_ in rows:
        first[queued_by] = min(first.get(queued_by, float(queued)), float(queued))
    return max(
        (
            float(started) - first[queued_by]
            for _job, queued_by, ran_by, _queued, started, _finished in rows
            if releases.index(ran_by) < releases.index(queued_by)
        ),
        default=0,
    )
