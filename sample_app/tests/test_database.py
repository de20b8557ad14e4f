"""Connections survive forks, kills and jobs; see LESSONS 1, 2 and 4."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import pymysql
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError, TimeoutError

from sample_app import database
from sample_app.database import Session
from sample_app.models import Note

MYSQL = "mysql+pymysql://app:p%25w@localhost/app?unix_socket=/run/mysqld/mysqld.sock"


def mysql_error(number, invalidated=False):
    """Return what SQLAlchemy makes of MySQL's error."""
    error = OperationalError("SELECT 1", {}, pymysql.err.OperationalError(number, "text"))
    error.connection_invalidated = invalidated
    return error


def test_pool_follows_the_settings(settings):
    """The plan counts on these: pool_size connections a process, never one more."""
    engine = database.configure(
        replace(settings, database_url=MYSQL, db_pool_size=3, db_pool_recycle=77.0)
    )
    pool = engine.pool
    assert (pool.size(), pool._max_overflow, pool._recycle, pool._pre_ping) == (3, 0, 77.0, True)
    assert engine.url.query["charset"] == "utf8mb4"
    assert pool.checkedout() == pool.checkedin() == 0, "connected before the first use"


def test_a_fork_gets_connections_of_its_own(settings):
    """The child must not speak through the parent's socket, nor end the parent's transaction."""
    script = textwrap.dedent("""
        import gc, os, sys
        from sample_app import config, database
        from sample_app.database import Session
        from sqlalchemy import text

        url = sys.argv[1]
        database.configure(config.Testing(
            database_url=url, cache_url="-", queue_url="-", secret_key="only for tests"))
        used = Session()
        used.execute(text("INSERT INTO leases VALUES ('mine', 'parent', 1)"))
        parents = id(used.connection().connection.dbapi_connection)
        with database.engine().connect() as other:      # one more, idle in the pool
            idle = id(other.connection.dbapi_connection)

        child = os.fork()
        if child == 0:
            try:
                gc.collect()
                assert database.engine().pool.checkedin() == 0, "inherited an idle connection"
                assert Session() is not used, "inherited a session"
                mine = id(Session().connection().connection.dbapi_connection)
                assert mine not in (parents, idle), "inherited a connection"
                os._exit(0)
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        used.commit()
        assert used.scalar(text("SELECT holder FROM leases WHERE name = 'mine'")) == "parent"
        assert database.engine().pool.checkedin() == 1, "the parent lost its own"
        sys.exit(status)
    """)
    command = [sys.executable, "-W", "error", "-c", script, settings.database_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_work_is_repeated_when_the_connection_dies(app):
    """A killed connection costs the visitor nothing."""
    calls = []

    def work(session):
        calls.append(session)
        if len(calls) < 3:
            raise mysql_error(2013, invalidated=True)
        return "done"

    assert database.run(work) == "done"
    assert len(calls) == 3


@pytest.mark.parametrize("number", [1213, 1317])
def test_deadlock_and_interruption_are_repeated(app, number):
    """MySQL itself says: try again."""
    answers = iter([mysql_error(number), None])

    def work(_session):
        if error := next(answers):
            raise error
        return "done"

    assert database.run(work) == "done"


@pytest.mark.parametrize("number", [3024, 1969, 2003, 1054])
def test_nothing_else_is_repeated(app, number):
    """A statement that was too slow once is too slow twice; a stopped server is not hammered."""
    calls = []

    def work(_session):
        calls.append(1)
        raise mysql_error(number)

    with pytest.raises(OperationalError):
        database.run(work)
    assert len(calls) == 1


def test_a_hanging_server_is_not_waited_for_twice(app, monkeypatch):
    """Two seconds of trying are enough."""
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    calls = []

    def work(_session):
        calls.append(1)
        raise mysql_error(2013, invalidated=True)

    with pytest.raises(OperationalError):
        database.run(work)
    assert len(calls) == 1


def test_failed_work_is_rolled_back(app):
    """Half of a change is none."""

    def work(session):
        session.execute(text("UPDATE leases SET holder = 'half'"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.run(work)
    assert Session.scalar(text("SELECT holder FROM leases")) == ""


@pytest.mark.parametrize("number", [1053, 1927, 3169])
def test_further_errors_mean_a_lost_connection(number):
    """SQLAlchemy is told of those that it does not know."""

    class Context:
        original_exception = pymysql.err.OperationalError(number, "text")
        is_disconnect = False

    database._mark_disconnects(Context)
    assert Context.is_disconnect


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (mysql_error(3024), "statement_timeout"),
        (mysql_error(1969), "statement_timeout"),
        (mysql_error(2003), "database_unavailable"),
        (TimeoutError(), "database_busy"),
    ],
)
def test_errors_are_explained(error, code):
    """The visitor learns what happened, and no SQL."""
    found, sentence = database.explain(error)
    assert found == code
    assert "SELECT" not in sentence


def test_a_note_is_saved_once_though_its_commit_was_in_doubt(app):
    """The connection may die after MySQL committed and before it said so."""
    from sample_app import notes

    attempts = []

    def work(session):
        note_id = notes._insert(session, "t" * 32, "Ada", "text", None)
        attempts.append(note_id)
        if len(attempts) == 1:
            session.commit()
            raise mysql_error(2013, invalidated=True)
        return note_id

    assert database.run(work) == attempts[0]
    assert len(attempts) == 2
    assert len(list(Session.scalars(select(Note)))) == 1


def test_integrity_errors_are_not_hidden(app):
    """Only what is safe to repeat is repeated."""
    with pytest.raises(IntegrityError):
        database.run(
            lambda session: session.execute(text("INSERT INTO leases VALUES ('scheduler', '', 0)"))
        )
