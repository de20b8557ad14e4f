"""Health checks, statistics, error pages and the request log."""

import errno
import itertools
import json
import logging
import os
import re
import struct
from pathlib import Path

import pymysql
import pytest
import redis
from sqlalchemy.exc import DBAPIError, TimeoutError

from sample_app import cache, database, logs, notes, queues
from sample_app.web import health

BROWSER = {"Accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def fail(monkeypatch):
    """Return a function that makes every use of the database raise an error."""

    def fail(error):
        def raise_error(*_args, **_kwargs):
            raise error

        monkeypatch.setattr(database, "run", raise_error)
        monkeypatch.setattr(database.Session, "execute", raise_error)

    return fail


def mysql_error(number):
    """Return an error as the driver and SQLAlchemy raise it."""
    try:
        pymysql.err.raise_mysql_exception(b"\xff" + struct.pack("<H", number) + b"at db.internal")
    except pymysql.err.MySQLError as original:
        return DBAPIError.instance("SELECT secret", {}, original, pymysql.err.Error)


@pytest.mark.parametrize(("timeouts", "period", "status"), [(2, 60, 200), (10**9, 0.3, 503)])
def test_a_check_is_retried_after_a_timeout(client, monkeypatch, timeouts, period, status):
    monkeypatch.setattr(health, "RETRY_PERIOD", period)
    calls = itertools.count()

    def ping():
        if next(calls) < timeouts:
            raise redis.exceptions.TimeoutError("Timeout reading from socket")

    monkeypatch.setattr(queues.instance.client, "ping", ping)
    assert client.get("/readyz").status_code == status


def test_the_process_is_alive_during_outages(client, stop, fail):
    stop("cache")
    stop("queue")
    fail(mysql_error(2003))
    response = client.get("/healthz")
    assert (response.status_code, response.json["status"]) == (200, "alive")


@pytest.mark.parametrize("down", [None, "cache", "queue", "mysql"])
def test_ready_needs_all_services(client, stop, fail, down):
    if down == "mysql":
        fail(mysql_error(2003))
    elif down:
        stop(down)
    response = client.get("/readyz")
    expected = (503, "unready") if down else (200, "ready")
    assert (response.status_code, response.json["status"]) == expected
    states = {name: check["state"] for name, check in response.json["checks"].items()}
    assert states == {
        name: "down" if name == down else "up" for name in ("mysql", "cache", "queue")
    }
    assert "db.internal" not in response.text


def test_ready_does_not_wait_for_the_breaker(client, stop, redis_servers):
    stop("cache")
    client.get("/")
    assert client.get("/readyz").status_code == 503
    redis_servers["cache"].connected = True
    assert client.get("/readyz").status_code == 200


def test_statistics_are_counted_once(client):
    first = client.get("/stats").json
    notes.add("Ada", "text")
    second = client.get("/stats").json
    assert first["value"]["notes"] == second["value"]["notes"] == 0
    assert first["value"]["counted_by"] == cache.process_name()
    assert first["pid"] == os.getpid()


def test_statistics_without_the_cache(client, stop):
    stop("cache")
    response = client.get("/stats")
    assert (response.status_code, response.json["error"]) == (503, "cache_unavailable")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimeoutError("QueuePool limit"), "database_busy"),
        (mysql_error(2003), "database_unavailable"),
        (mysql_error(3024), "statement_timeout"),
        (mysql_error(2013), "database_timeout"),
        (mysql_error(1114), "database_read_only"),
        (mysql_error(3), "database_read_only"),
    ],
)
def test_a_database_outage_is_a_503_without_details(client, fail, error, code):
    fail(error)
    page = client.get("/", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "Temporarily unavailable" in page.text
    response = client.get("/")
    assert (response.status_code, response.json["error"]) == (503, code)
    assert re.fullmatch("[0-9a-f]{32}", response.json["request_id"])
    assert "secret" not in page.text + response.text
    assert "db.internal" not in page.text + response.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/var/upload"), 503, "disk_full"),
        (OSError(errno.EACCES, "Permission denied", "/private"), 500, "internal_server_error"),
        (KeyError("private"), 500, "internal_server_error"),
    ],
)
def test_other_errors_are_logged_without_details_for_the_client(
    make_app, fail, caplog, error, status, code
):
    app = make_app()
    app.testing = False
    fail(error)
    caplog.handler.setFormatter(logs.ContextFormatter("r"))
    response = app.test_client().get("/notes/1")
    assert (response.status_code, response.json["error"]) == (status, code)
    assert "private" not in response.text
    if status == 500:
        lines = [json.loads(line) for line in caplog.text.splitlines()]
        (line,) = [line for line in lines if "traceback" in line]
        assert type(error).__name__ in line["traceback"] or "PermissionError" in line["traceback"]
        assert line["request_id"] == response.json["request_id"]


def test_http_errors(client, make_app):
    assert "Page not found" in client.get("/nope", headers=BROWSER).text
    assert client.get("/nope").json["error"] == "not_found"
    not_allowed = client.get("/notes")
    assert not_allowed.status_code == 405
    assert "POST" in not_allowed.headers["Allow"]
    large = make_app(max_content_length=2000).test_client().post("/notes", data={"x": "x" * 3000})
    assert large.status_code == 413


def test_a_request_is_logged_with_its_id(client, caplog):
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(logs.ContextFormatter("r"))
    client.get("/healthz")
    response = client.get("/whoami?private=1")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "sample_app.web.requests"]
    assert line["request_id"] == response.json["request_id"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/whoami", 200)
    assert "private" not in json.dumps(line)
    assert logs.current_request_id() is None


def test_the_session_ends_with_the_request(client, post_note):
    post_note()
    assert not database.Session.registry.has()
    assert database.engine.pool.checkedout() == 0


def test_create_app_does_not_connect(make_app, tmp_path):
    path = tmp_path / "missing" / "app.sqlite"
    make_app(database_url=f"sqlite:///{path}")
    assert not Path(path).exists()
    assert database.engine.pool.checkedin() == 0
