"""Connections survive forks, kills and jobs."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pymysql
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from sample_app import database, notes
from sample_app.database import Session
from sample_app.models import Note

MYSQL = "mysql+pymysql://app:p%25w@localhost/app?unix_socket=/run/mysqld/mysqld.sock"
TICK = text("INSERT INTO ticks VALUES (1, 'today', 'host', 1)")


def mysql_error(number, invalidated=False):
    """Return an error as SQLAlchemy raises it."""
    error = OperationalError("SELECT 1", {}, pymysql.err.OperationalError(number, "text"))
    error.connection_invalidated = invalidated
    return error


def test_the_pool_follows_the_settings(settings):
    changes = {"database_url": MYSQL, "db_pool_size": 3, "db_pool_recycle": 77.0}
    database.init(replace(settings, **changes))
    pool = database.engine.pool
    assert (pool.size(), pool._max_overflow, pool._recycle, pool._pre_ping) == (3, 0, 77.0, True)
    assert pool.checkedout() == pool.checkedin() == 0, "connected before the first use"


def test_the_ping_of_a_pooled_connection_has_a_short_timeout(settings):
    database.init(replace(settings, database_url=MYSQL))
    connection, during = Mock(_read_timeout=27.0), []
    connection.ping.side_effect = lambda *_: during.append(connection._read_timeout)
    assert database.engine.dialect.do_ping(connection)
    assert (during, connection._read_timeout) == ([database.PING_TIMEOUT], 27.0)
    assert hasattr(pymysql.Connection(defer_connect=True, read_timeout=5), "_read_timeout")


def test_a_forked_process_has_its_own_connections(settings):
    script = textwrap.dedent("""
        import gc, os, sys
        from sample_app import config, database
        from sample_app.database import Session
        from sqlalchemy import text

        database.init(config.Settings(
            database_url=sys.argv[1], cache_url="-", queue_url="-", secret_key="-"))
        used = Session()
        used.execute(text("INSERT INTO ticks VALUES (1, 'today', 'parent', 1)"))
        in_use = id(used.connection().connection.dbapi_connection)
        with database.engine.connect() as other:      # returned to the pool
            idle = id(other.connection.dbapi_connection)

        child = os.fork()
        if child == 0:
            try:
                gc.collect()
                assert database.engine.pool.checkedin() == 0, "inherited an idle connection"
                assert Session() is not used, "inherited a session"
                own = id(Session().connection().connection.dbapi_connection)
                assert own not in (in_use, idle), "inherited a connection"
                os._exit(0)
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        used.commit()
        assert used.scalar(text("SELECT host FROM ticks")) == "parent"
        assert database.engine.pool.checkedin() == 1, "the parent lost its connection"
        sys.exit(status)
    """)
    command = [sys.executable, "-W", "error", "-c", script, settings.database_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "errors",
    [
        [mysql_error(2013, invalidated=True)] * 2,  # killed
        [mysql_error(1213)],  # deadlock
        [mysql_error(1317)],  # interrupted
    ],
)
def test_transient_errors_are_retried(app, errors):
    work = Mock(side_effect=[*errors, "done"])
    assert database.run(work) == "done"
    assert work.call_count == len(errors) + 1


@pytest.mark.parametrize("number", [3024, 1969, 2003, 1054])
def test_other_errors_are_not_retried(app, number):
    work = Mock(side_effect=mysql_error(number))
    with pytest.raises(OperationalError):
        database.run(work)
    assert work.call_count == 1


def test_a_hanging_server_is_awaited_once(app, monkeypatch):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    work = Mock(side_effect=mysql_error(2013, invalidated=True))
    with pytest.raises(OperationalError):
        database.run(work)
    assert work.call_count == 1


def test_failed_work_is_rolled_back(app):
    def work(session):
        session.execute(TICK)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.run(work)
    assert Session.scalar(text("SELECT COUNT(*) FROM ticks")) == 0


@pytest.mark.parametrize("number", [1053, 1927, 3169])
def test_more_errors_are_disconnects(number):
    original = pymysql.err.OperationalError(number, "text")
    context = SimpleNamespace(original_exception=original, is_disconnect=False)
    database._mark_disconnects(context)
    assert context.is_disconnect


def test_a_note_is_saved_once_when_the_result_of_its_commit_is_lost(app):
    attempts = []

    def work(session):
        attempts.append(notes._insert(session, "t" * 32, "Ada", "text", None))
        if len(attempts) == 1:
            session.commit()
            raise mysql_error(2013, invalidated=True)
        return attempts[-1]

    assert database.run(work) == attempts[0]
    assert len(attempts) == 2
    assert len(list(Session.scalars(select(Note)))) == 1
