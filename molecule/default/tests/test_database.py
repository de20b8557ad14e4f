"""Database connections are replaced, never leaked, and time out in order."""

from __future__ import annotations

import pytest

from helpers.clients import live_web, main_pid
from helpers.wait import wait_for


@pytest.fixture
def short_wait(host, sql):
    """Configure MySQL to close new connections after two idle seconds."""
    default = sql.variable("wait_timeout")
    sql.rows("SET GLOBAL wait_timeout = 2")
    sql.rows("KILL USER sample; KILL USER sample_jobs")
    yield
    sql.rows(f"SET GLOBAL wait_timeout = {default}")
    sql.rows("KILL USER sample; KILL USER sample_jobs")


def test_idle_connections_are_replaced(site, sql, short_wait):
    for _ in range(20):
        assert site.get("/").status_code == 200
    wait_for(lambda: len(sql.connections("sample")) <= 2, 15)  # the scheduler reconnects
    for _ in range(20):
        assert site.get("/").status_code == 200


def test_killed_connections_fail_no_request(site, sql):
    with site.under_load("/") as answers:
        for killed in range(8):
            wait_for(lambda enough=8 * killed: sum(answers.values()) >= enough, 20, every=0.01)
            sql.rows("KILL USER sample; KILL USER sample_jobs")
        wait_for(lambda: sum(answers.values()) >= 64, 20)
    assert set(answers) == {"200"}, answers


def test_failing_jobs_leave_no_connection_behind(diagnostics, sql):
    answer = diagnostics("POST", "/jobs", json={"count": 300, "fail_every": 3})
    assert answer.status_code == 202
    seen = []

    def finished():
        seen.append(len(sql.connections("sample_jobs")))
        counts = diagnostics("GET", answer.json()["url"]).json()
        return counts if counts["finished"] + counts["failed"] == 300 else None

    counts = wait_for(finished, 90)
    assert (counts["finished"], counts["failed"]) == (200, 100)
    assert len(counts["connections"]) <= 2, "a job opened its own connection"
    assert max(seen) <= 4, seen  # of the worker and the scheduler


def test_an_outage_of_mysql_is_a_503_and_the_app_stays_alive(host, site):
    unit = "mariadb.service"
    web = main_pid(host, live_web(host, "sample"))
    host.check_output("systemctl stop %s", unit)
    try:
        page = site.get("/")
        assert page.status_code == 503
        assert "database" in page.text.lower()
        assert page.elapsed.total_seconds() < 5
        ready = site.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["mysql"]["state"] == "down"
        assert ready.json()["checks"]["queue"]["state"] == "up"
        assert site.get("/healthz").status_code == 200
    finally:
        host.check_output("systemctl start %s", unit)
    wait_for(lambda: site.get("/readyz").status_code == 200, 20)
    assert main_pid(host, live_web(host, "sample")) == web, "the app was restarted"


def test_the_timeouts_are_in_order(sql, environment, settings):
    assert int(environment["DB_POOL_RECYCLE"]) < int(sql.variable("wait_timeout"))
    assert int(sql.variable("innodb_lock_wait_timeout")) < settings["request_timeout"]
    assert float(environment["REQUEST_TIMEOUT"]) == settings["request_timeout"]
