"""Health, status and errors; see LESSONS 9, 11 and 17."""

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
from flask.cli import FlaskGroup
from sqlalchemy.exc import DBAPIError, TimeoutError

from sample_app import cache, database, logs, notes, queues
from sample_app.web import health


@pytest.fixture
def break_mysql(monkeypatch):
    """Return a function that makes every use of the database fail with an error number."""

    def do(number=2003):
        packet = b"\xff" + struct.pack("<H", number) + b"at db.internal"
        try:
            pymysql.err.raise_mysql_exception(packet)
        except pymysql.err.MySQLError as original:
            statement = ("SELECT secret", {}, original, pymysql.err.Error)
            error = DBAPIError.instance(*statement)

        def fail(*_args, **_kwargs):
            raise error

        monkeypatch.setattr(database, "run", fail)
        monkeypatch.setattr(database.Session, "execute", fail)

    return do


@pytest.mark.parametrize(("late", "status"), [(2, 200), (10**9, 503)])
def test_ready_is_patient_with_a_busy_host(client, monkeypatch, late, status):
    """A load balancer takes a host out whose probe fails."""
    monkeypatch.setattr(health, "PATIENCE", 0.3)
    asked = itertools.count()

    def ping():
        if next(asked) < late:
            raise redis.exceptions.TimeoutError("Timeout reading from socket")

    monkeypatch.setattr(queues.guard.client, "ping", ping)
    assert client.get("/readyz").status_code == status


def test_alive_touches_nothing(client, stop, break_mysql):
    """An outage elsewhere is no reason to restart this process."""
    stop("cache")
    stop("queue")
    break_mysql()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json["status"]) == (200, "alive")


def test_ready(client):
    """All three are up."""
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "ready")
    assert {name: check["state"] for name, check in answer.json["checks"].items()} == {
        "mysql": "up",
        "cache": "up",
        "queue": "up",
    }


@pytest.mark.parametrize("name", ["cache", "queue", "mysql"])
def test_unready(client, stop, break_mysql, name):
    """Each has its own state, and no address is told."""
    break_mysql() if name == "mysql" else stop(name)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (503, "unready")
    down = [key for key, check in answer.json["checks"].items() if check["state"] == "down"]
    assert down == [name]
    assert "db.internal" not in answer.text


def test_ready_again_at_once(client, stop, start):
    """The breaker's pause does not hide a server that is back."""
    stop("cache")
    client.get("/")
    assert client.get("/readyz").status_code == 503
    cache.guard.client.connection_pool.connection_kwargs["server"].connected = True
    assert client.get("/readyz").status_code == 200


def test_counter(client):
    """Opening the page counts, as posting does; reading does not."""
    client.get("/")
    assert client.post("/counter").json["value"] == 2
    answer = client.get("/counter").json
    assert (answer["value"], answer["pid"]) == (2, os.getpid())


@pytest.mark.parametrize(("method", "path"), [("get", "/counter"), ("get", "/cache")])
def test_without_the_cache(client, stop, method, path):
    """A clear answer."""
    stop("cache")
    answer = getattr(client, method)(path)
    assert (answer.status_code, answer.json["error"]) == (503, "cache_unavailable")
    assert answer.headers["Retry-After"]


def test_cached_value(client):
    """Made once: what happens after that is not in it."""
    first = client.get("/cache").json["value"]
    notes.add("Ada", "text")
    second = client.get("/cache").json["value"]
    assert first["notes"] == second["notes"] == 0
    assert first["made_by"] == cache.whoami()
    assert second["age"] >= 0


def test_note(client, post_note):
    """What the page's script asks for."""
    post_note()
    answer = client.get("/notes/1")
    assert answer.json == {
        "id": 1,
        "stamp": "pending",
        "words": None,
        "stamped_at": None,
        "stamped_by": None,
    }
    missing = client.get("/notes/2")
    assert (missing.status_code, missing.json["error"]) == (404, "not_found")


def test_stream(client):
    """Events, one after the other, of a bounded number."""
    answer = client.get("/stream?count=3&pause=0")
    assert answer.mimetype == "text/event-stream"
    assert re.findall(r"^id: (\d+)$", answer.text, re.M) == ["1", "2", "3"]
    assert "X-Accel-Buffering" not in answer.headers, "would hide a proxy that buffers"
    assert client.get("/stream?count=9999&pause=0").text.count("event: tick") == 20


@pytest.mark.parametrize("query", ["pause=nan", "pause=x", "count=x", "count=1e9"])
def test_stream_refuses_what_is_no_number(client, query):
    """Before it answers: a stream that has begun can only break."""
    assert client.get(f"/stream?{query}").status_code == 400


def test_stream_sends_each_event_by_itself(client):
    """Nothing is gathered before it is sent."""
    answer = client.get("/stream?count=2&pause=0", buffered=False)
    assert len(list(answer.response)) == 2


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (2003, "database_unavailable"),
        (3024, "statement_timeout"),
        (1969, "statement_timeout"),
        (2013, "database_timeout"),
        (1114, "database_read_only"),
        (1021, "database_read_only"),
        (1026, "database_read_only"),
        (3, "database_read_only"),
        (28, "database_read_only"),
    ],
)
def test_without_mysql(client, break_mysql, number, code):
    """503 with a clear body: a page for browsers, JSON for programs, no SQL for anybody."""
    break_mysql(number)
    page = client.get("/", headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "Back in a moment" in page.text
    for path, accept in (("/", "application/json"), ("/notes/1", "*/*")):
        answer = client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.json["error"]) == (503, code)
        assert re.fullmatch("[0-9a-f]{32}", answer.json["request_id"])
    assert "secret" not in page.text + answer.text
    assert "db.internal" not in page.text + answer.text


def test_pool_exhausted(client, monkeypatch):
    """Waiting for a connection in vain is an outage, too."""

    def fail(*_args):
        raise TimeoutError("QueuePool limit")

    monkeypatch.setattr(database, "run", fail)
    answer = client.get("/notes/1")
    assert (answer.status_code, answer.json["error"]) == (503, "database_busy")


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(errno.ENOSPC, 503, "disk_full"), (errno.EACCES, 500, "internal_server_error")],
)
def test_a_full_disk(make_app, monkeypatch, number, status, code):
    """Reads go on; what would be saved is refused with the reason."""

    def fail(*_args):
        raise OSError(number, os.strerror(number), "/var/upload")

    monkeypatch.setattr(database, "run", fail)
    app = make_app()
    app.testing = False
    browser = app.test_client()
    answer = browser.get("/notes/1")
    assert (answer.status_code, answer.json["error"]) == (status, code)
    assert browser.get("/whoami").status_code == 200


def test_a_mistake_of_ours(make_app, monkeypatch, caplog):
    """500 without details for the visitor, one line with the traceback and the id for us."""
    app = make_app()
    app.testing = False

    def fail(*_args):
        raise KeyError("details")

    monkeypatch.setattr(database, "run", fail)
    caplog.handler.setFormatter(logs.JsonFormatter("r"))
    answer = app.test_client().get("/notes/1")
    assert (answer.status_code, answer.json["error"]) == (500, "internal_server_error")
    assert "details" not in answer.text
    lines = [json.loads(line) for line in caplog.text.splitlines() if '"traceback"' in line]
    assert [line["exception"] for line in lines] == ["KeyError"]
    assert lines[0]["request_id"] == answer.json["request_id"]


def test_not_found(client):
    """A page of our own for browsers, JSON for programs."""
    assert "not in the book" in client.get("/nope").text
    assert client.get("/nope", headers={"Accept": "application/json"}).json["error"] == "not_found"


def test_method_not_allowed(client):
    """HTTP's own headers are kept."""
    answer = client.get("/notes")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_too_large(make_app):
    """A body above the limit is refused, readably."""
    client = make_app(max_content_length=2000).test_client()
    answer = client.post("/notes", data={"body": "x" * 3000})
    assert answer.status_code == 413
    assert "too much" in answer.text


def test_every_request_is_logged_with_its_id(client, caplog):
    """The line that ties nginx's to the job's; health checks are not worth one."""
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(logs.JsonFormatter("r"))
    client.get("/healthz")
    answer = client.get("/whoami?private=1")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "sample_app.web.requests"]
    assert line["request_id"] == answer.json["request_id"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/whoami", 200)
    assert "private" not in json.dumps(line)
    assert logs.current_request_id() is None


def test_the_session_ends_with_the_request(client, post_note):
    """No connection stays with a thread that waits for its next visitor."""
    post_note()
    assert not database.Session.registry.has()
    assert database.engine().pool.checkedout() == 0


def test_making_the_app_connects_to_nothing(make_app, tmp_path):
    """So that it may be made before a fork, and while MySQL is away."""
    path = tmp_path / "never" / "made.sqlite"
    make_app(database_url=f"sqlite:///{path}")
    assert not Path(path).exists()
    assert database.engine().pool.checkedin() == 0


def test_command_line(app, runner):
    """`flask routes` shows the endpoints that the README names."""
    found = runner.invoke(FlaskGroup(create_app=lambda: app), ["routes"]).output
    for path in ("/", "/notes", "/whoami", "/counter", "/cache", "/healthz", "/readyz", "/stream"):
        assert re.search(rf"\s{path}\s", found), path
    assert "/hooks/jobs" in found
    assert "/slow" in found
