"""One engine a process and sessions from it, for the site, the worker and the scheduler alike.

The engine connects when first used, checks a pooled connection before it is handed out
(`pool_pre_ping`) and retires it before MySQL's `wait_timeout` would (`pool_recycle`). A forked
process starts with an empty pool of its own, whoever forked it (Gunicorn with or without preload,
an RQ work horse): two processes talking through one socket would read each other's answers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import tenacity
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.util import ThreadLocalRegistry

from sample_app.config import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

Session = scoped_session(sessionmaker(expire_on_commit=False))

# MySQL's and MariaDB's error numbers
STATEMENT_LIMIT = frozenset({3024, 1969})  # max_execution_time, max_statement_time
CONNECTION_GONE = frozenset({1053, 1927, 3169})  # shutdown, killed: SQLAlchemy lacks some of these
NO_ANSWER = 2013  # the driver's own
# A full disk, as a table, a commit or the binary log says so; and read-only.
DISK_FULL = frozenset({1021, 1026, 1030, 1114, 1180, 1290, 1598})
TRY_AGAIN = frozenset({1213, 1317})  # deadlock, interrupted: what MySQL tells a killed statement

_engine: Engine | None = None
_inherited: list[Any] = []


def configure(settings: Settings) -> Engine:
    """Make this process's engine (nothing is connected yet) and bind the sessions to it."""
    global _engine
    url = make_url(settings.database_url)
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": settings.db_pool_recycle}
    if url.get_backend_name() in {"mysql", "mariadb"}:
        if "charset" not in url.query:
            url = url.update_query_dict({"charset": "utf8mb4"})
        options |= {
            "pool_size": settings.db_pool_size,
            "max_overflow": settings.db_max_overflow,
            "pool_timeout": settings.db_pool_timeout,
            "connect_args": {
                "connect_timeout": 3,
                "read_timeout": settings.db_read_timeout,
                "write_timeout": settings.db_read_timeout,
            },
        }
    close()
    _engine = create_engine(url, **options)
    event.listen(_engine, "handle_error", _mark_disconnects)
    Session.remove()
    Session.configure(bind=_engine)
    return _engine


def engine() -> Engine:
    """Return this process's engine; raises RuntimeError before `configure`."""
    if _engine is None:
        raise RuntimeError("sample_app.database.configure() was not called")
    return _engine


def close() -> None:
    """Give every connection of this process back to the server."""
    if _engine is not None:
        Session.remove()
        _engine.dispose()


def error_code(error: BaseException | None) -> int | None:
    """Return the server's error number, or None."""
    original = getattr(error, "orig", error)
    args = getattr(original, "args", ())
    return args[0] if args and isinstance(args[0], int) else None


def is_outage(error: BaseException) -> bool:
    """Say whether it is the server's trouble, and no mistake of ours.

    Below 1000 are errors that the server got from its system, such as of a write to a full disk.
    """
    if isinstance(error, (OperationalError, TimeoutError)):
        return True
    code = error_code(error)
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or (code is not None and code < 1000)
    )


def is_transient(error: BaseException) -> bool:
    """Say whether doing the same once more, on another connection, is likely to work."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or error_code(error) in TRY_AGAIN


def explain(error: BaseException) -> tuple[str, str]:
    """Return a short code and a sentence for the visitor; neither holds SQL or addresses."""
    if isinstance(error, TimeoutError):
        return "database_busy", "Every database connection is in use. Please try again."
    if error_code(error) in STATEMENT_LIMIT:
        return "statement_timeout", "The database stopped this query: it ran longer than allowed."
    code = error_code(error)
    if code == NO_ANSWER:  # such as of a commit while the disk is full, for which MariaDB waits
        return "database_timeout", "The database did not answer in time. Nothing may be saved."
    if code is not None and (0 < code < 1000 or code in DISK_FULL):
        return "database_read_only", "The database cannot write now. What is there can be read."
    return "database_unavailable", "The database cannot be reached. Please try again in a moment."


def run(work: Callable[..., T], *args: Any) -> T:
    """Call `work(session, *args)` in a transaction and commit it.

    A connection that dies on the way (killed, server restarted) costs the visitor nothing: the work
    is done again on a fresh one, so it must be safe to repeat. Nothing is repeated after two
    seconds, which keeps a hanging server from being waited for twice.
    """

    def attempt() -> T:
        session = Session()
        try:
            result = work(session, *args)
            session.commit()
        except BaseException:
            session.rollback()
            raise
        return result

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(4) | tenacity.stop_after_delay(2),
        wait=tenacity.wait_random(0, 0.05),
        before_sleep=_log_retry,
        reraise=True,
    )(attempt)


def connection_id() -> int:
    """Return the server's id of the connection this session uses (its own id on SQLite)."""
    session = Session()
    if session.get_bind().dialect.name == "sqlite":
        return id(session.connection().connection.dbapi_connection)
    return int(session.scalar(text("SELECT CONNECTION_ID()")))


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("database work is repeated", extra={"error_code": error_code(error)})


def _mark_disconnects(context: ExceptionContext) -> None:
    """Tell SQLAlchemy which further errors mean that the connection is gone."""
    if error_code(context.original_exception) in CONNECTION_GONE:
        context.is_disconnect = True


def _after_fork() -> None:
    """Leave the parent its connections: forget them here without a word to the server.

    A session in use is kept alive on purpose: collecting it would roll back the parent's work.
    """
    if _engine is not None:
        _inherited.append(Session.registry)
        Session.registry = ThreadLocalRegistry(Session.session_factory)
        _engine.dispose(close=False)


os.register_at_fork(after_in_child=_after_fork)
