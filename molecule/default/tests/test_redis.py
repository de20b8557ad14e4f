"""The cache evicts keys, the queue keeps its jobs, and pages work without either."""

from __future__ import annotations

import time

import pytest

from helpers.clients import main_pid, restarted
from helpers.wait import wait_for

BREAKER_RESET = 2.2  # seconds, a little longer than the app's circuit breaker stays open
FILL_THE_CACHE = """
import os, redis
cache = redis.from_url(os.environ["CACHE_URL"])
for number in range(cache.info("memory")["maxmemory"] // 50_000):
    cache.set(f"filler:{number}", os.urandom(100_000), ex=60)
print(cache.info("stats")["evicted_keys"])
"""


@pytest.fixture
def response_time(site):
    """Return the longest response time of a page without an outage."""
    return max(site.get("/").elapsed.total_seconds() for _ in range(5))


@pytest.fixture
def stopped(host, site):
    """Return a function that stops a unit until the test ends."""
    units = []

    def stop(unit):
        units.append(unit)
        host.check_output("systemctl stop %s", unit)

    yield stop
    for unit in units:
        host.check_output("systemctl start %s", unit)
    wait_for(lambda: site.get("/readyz").status_code == 200, 30)


@pytest.mark.parametrize("instance", ["cache", "queue"])
def test_pages_answer_within_a_second_without_redis(instance, site, response_time, stopped):
    stopped(f"redis-server@sample-{instance}.service")
    for _ in range(5):
        answer = site.get("/")
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 1 + response_time
    ready = site.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"][instance]["state"] == "down"


@pytest.fixture
def hanging(host, site):
    """Return a function that suspends a unit's process: connections open, but get no reply."""
    pids = []

    def hang(unit):
        time.sleep(BREAKER_RESET)  # an earlier test may have opened the breaker
        pids.append(main_pid(host, unit))
        host.check_output(f"kill -STOP {pids[-1]}")

    yield hang
    for pid in pids:
        host.check_output(f"kill -CONT {pid}")
    wait_for(lambda: site.get("/readyz").status_code == 200, 30)


@pytest.mark.parametrize("instance", ["cache", "queue"])
def test_pages_answer_within_a_second_while_redis_hangs(instance, site, response_time, hanging):
    hanging(f"redis-server@sample-{instance}.service")
    for _ in range(5):
        answer = site.get("/")
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 1 + response_time
    assert site.get("/readyz").json()["checks"][instance]["state"] == "down"


def test_queued_jobs_survive_a_killed_queue(host, diagnostics):
    host.check_output("systemctl stop sample-worker@1.service")
    try:
        answer = diagnostics("POST", "/jobs", json={"count": 200})
        assert answer.status_code == 202
        queue = main_pid(host, "redis-server@sample-queue.service")
        host.check_output(f"kill -KILL {queue}")
        wait_for(lambda: restarted(host, "redis-server@sample-queue.service", queue), 30)
    finally:
        host.check_output("systemctl start sample-worker@1.service")
    wait_for(lambda: diagnostics("GET", answer.json()["url"]).json()["finished"] == 200, 60)


def test_a_full_cache_loses_no_job(host, diagnostics, environment):
    host.check_output("systemctl stop sample-worker@1.service")
    try:
        answer = diagnostics("POST", "/jobs", json={"count": 100})
        evicted = int(host.check_output("flaskstack sample run python -c %s", FILL_THE_CACHE))
        assert evicted > 0, "the cache was not full"
    finally:
        host.check_output("systemctl start sample-worker@1.service")
    wait_for(lambda: diagnostics("GET", answer.json()["url"]).json()["finished"] == 100, 60)


def test_workers_reconnect_to_redis(host, diagnostics):
    worker = main_pid(host, "sample-worker@1.service")
    host.check_output("systemctl restart redis-server@sample-queue.service")
    answer = wait_for(lambda: diagnostics("POST", "/jobs", json={"count": 5}).json().get("url"), 30)
    wait_for(lambda: diagnostics("GET", answer).json()["finished"] == 5, 60)
    assert main_pid(host, "sample-worker@1.service") == worker
