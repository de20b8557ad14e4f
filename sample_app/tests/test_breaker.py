"""A database that hangs does not take all threads of the site."""

import threading

import pymysql
import pytest
from sqlalchemy.exc import OperationalError

from sample_app import breaker, database
from sample_app.breaker import PAUSE


@pytest.fixture
def clock(monkeypatch):
    """Return the time as a list of one number, which tests change."""
    now = [1000.0]
    monkeypatch.setattr(breaker, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def failing(app, clock):
    """Return a function that is called and fails with an error number after some seconds."""

    def work(_session, number, seconds):
        work.calls += 1
        clock[0] += seconds
        raise OperationalError("", {}, pymysql.err.OperationalError(number, "text"))

    work.calls = 0
    return work


def fail(work, number=2013, seconds=7):
    """Call the function in a transaction."""
    with pytest.raises(OperationalError):
        database.run(work, number, seconds)


def test_calls_after_a_timeout_are_rejected_until_a_trial(clock, failing):
    fail(failing)
    with pytest.raises(database.Unresponsive) as error:
        database.run(failing, 2013, 7)
    assert database.is_outage(error.value)
    assert database.explain(error.value)[0] == "database_timeout"
    assert failing.calls == 1
    clock[0] += PAUSE + 0.1
    fail(failing)
    assert failing.calls == 2
    with pytest.raises(database.Unresponsive):
        database.run(failing, 2013, 7)


@pytest.mark.parametrize(
    ("number", "seconds"),
    [(2013, 0.1), (2003, 0.1), (1205, 1), (3024, 7), (1969, 7)],
    ids=["killed", "refused", "short lock wait", "statement limit", "MariaDB's statement limit"],
)
def test_a_server_that_responds_is_asked_again(failing, number, seconds):
    fail(failing, number, seconds)
    fail(failing, number, seconds)


@pytest.mark.parametrize("number", [1205, 2003], ids=["lock wait", "no connection"])
def test_other_waits_also_count(failing, number):
    fail(failing, number)
    with pytest.raises(database.Unresponsive):
        database.run(failing, number, 7)


def test_functions_are_independent(failing):
    fail(failing)
    assert database.run(lambda _session: "read") == "read"


def test_only_one_call_is_a_trial(app, clock, failing):
    fail(failing)
    clock[0] += PAUSE + 0.1
    started, end = threading.Event(), threading.Event()
    state = database._breakers[failing]

    def trial():
        with state.call(lambda _: True):
            started.set()
            end.wait(10)

    thread = threading.Thread(target=trial)
    thread.start()
    assert started.wait(10)
    try:
        with pytest.raises(database.Unresponsive):
            database.run(failing, 2013, 7)
    finally:
        end.set()
        thread.join()
    fail(failing)  # the trial succeeded
    assert failing.calls == 2


def test_a_call_long_after_a_timeout_is_no_trial(app, clock, failing):
    fail(failing)
    clock[0] += 2 * PAUSE + 0.1
    with database._breakers[failing].call(lambda _: True):
        fail(failing)
    assert failing.calls == 2


def test_background_processes_wait(settings, failing):
    database.init(settings)
    fail(failing)
    fail(failing)


def test_the_answer_is_a_503(app, client, monkeypatch):
    def unresponsive(*_):
        raise database.Unresponsive

    monkeypatch.setattr(database, "run", unresponsive)
    answer = client.get("/")
    assert (answer.status_code, answer.json["error"]) == (503, "database_timeout")
    assert answer.headers["Retry-After"] == "5"
