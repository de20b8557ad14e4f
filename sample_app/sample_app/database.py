"""One engine per process and its sessions, for the site, the worker and the scheduler.

The engine connects when first used, tests a pooled connection before use (`pool_pre_ping`) and
replaces it before MySQL's `wait_timeout` closes it (`pool_recycle`). A forked process starts with
an empty pool, because two processes on one socket would read each other's responses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import tenacity
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.util import ThreadLocalRegistry

from sample_app.breaker import Breaker, Open
from sample_app.config import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

POOL_TIMEOUT = 3  # seconds to wait for a free connection
PING_TIMEOUT = 2  # seconds for the test of a pooled connection, which a new connection may follow

Session = scoped_session(sessionmaker(expire_on_commit=False))

# MySQL's and MariaDB's error numbers
STATEMENT_TIMEOUT = frozenset({3024, 1969})  # max_execution_time, max_statement_time
CONNECTION_LOST = frozenset({1053, 1927, 3169})  # shutdown, kill; SQLAlchemy misses some
NO_CONNECTION, NO_RESPONSE = 2003, 2013  # also after the driver's timeouts
LOCK_TIMEOUT = 1205
# A full disk, reported by a table, a commit or the binary log; and a read-only server.
READ_ONLY = frozenset({1021, 1026, 1030, 1114, 1180, 1290, 1598})
RETRYABLE = frozenset({1213, 1317})  # deadlock, killed statement

engine: Engine | None = None
_breakers: dict[Callable[..., Any], Breaker] | None = None
_inherited: list[Any] = []


class Unresponsive(TimeoutError):
    """The server does not respond, and the next try is later."""


def init(settings: Settings, *, fail_fast: bool = False) -> None:
    """Create this process's engine, without a connection, and bind the sessions to it.

    With `fail_fast` a server that hangs takes one thread and not all of them (see `breaker`).
    """
    global engine, _breakers
    _breakers = {} if fail_fast else None
    url = make_url(settings.database_url)
    timeouts = {
        "connect_timeout": 3,
        "read_timeout": settings.db_read_timeout,
        "write_timeout": settings.db_read_timeout,
    }
    close()
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_recycle=settings.db_pool_recycle,
        pool_size=settings.db_pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        connect_args=timeouts if url.get_backend_name() != "sqlite" else {},
    )
    event.listen(engine, "handle_error", _mark_disconnects)
    _limit_ping(engine)
    Session.remove()
    Session.configure(bind=engine)


def close() -> None:
    """Close all connections of this process."""
    if engine is not None:
        Session.remove()
        engine.dispose()


def error_code(error: BaseException | None) -> int | None:
    """Return the server's error number, or None."""
    original = getattr(error, "orig", error)
    args = getattr(original, "args", ())
    return args[0] if args and isinstance(args[0], int) else None


def is_outage(error: BaseException) -> bool:
    """Return whether the server failed, rather than the app."""
    if isinstance(error, (OperationalError, TimeoutError)):
        return True
    return isinstance(error, DBAPIError) and (error.connection_invalidated or _is_system(error))


def is_transient(error: BaseException) -> bool:
    """Return whether the same transaction is likely to succeed on another connection."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or error_code(error) in RETRYABLE


def explain(error: BaseException) -> tuple[str, str]:
    """Return an error code and a message for the visitor, without SQL and addresses."""
    code = error_code(error)
    if isinstance(error, Unresponsive):
        return "database_timeout", "The database does not respond. Please try again in a moment."
    if isinstance(error, TimeoutError):
        return "database_busy", "Every database connection is in use. Please try again."
    if code in STATEMENT_TIMEOUT:
        return "statement_timeout", "The database stopped this query: it ran longer than allowed."
    if code == NO_RESPONSE:  # for example a commit on a full disk, where MariaDB waits
        return "database_timeout", "The database did not respond in time. Your change may be lost."
    if code in READ_ONLY or _is_system(error):
        return "database_read_only", "The database cannot save changes now. Reading still works."
    return "database_unavailable", "The database cannot be reached. Please try again in a moment."


def _is_system(error: BaseException) -> bool:
    """Return whether it is an error of the server's operating system, such as a full disk."""
    return 0 < (error_code(error) or 0) < 1000


def run(work: Callable[..., T], *args: Any) -> T:
    """Call `work(session, *args)` in a transaction and commit it.

    When the connection is lost (killed, server restarted) the work is repeated on a new one, so it
    must be idempotent. There are no retries after two seconds, so a request waits for a hanging
    server only once. Raises Unresponsive if another request has just waited for it in vain.
    """
    if _breakers is None:
        return _run(work, *args)
    try:
        with _breakers.setdefault(work, Breaker()).call(_has_waited):
            return _run(work, *args)
    except Open:
        raise Unresponsive("no response to an earlier request") from None


def _has_waited(error: Exception) -> bool:
    """Return whether the next call is likely to wait in vain, too."""
    waits = (NO_CONNECTION, NO_RESPONSE, LOCK_TIMEOUT)
    return isinstance(error, DBAPIError) and error_code(error) in waits


def _limit_ping(engine: Engine) -> None:
    """Limit the test of pooled connections, for which PyMySQL waits as long as for a statement."""
    ping = engine.dialect.do_ping

    def limited(connection: Any) -> bool:
        usual = getattr(connection, "_read_timeout", None)
        if usual is None:  # another driver, or no limit
            return ping(connection)
        connection._read_timeout = min(usual, PING_TIMEOUT)
        try:
            return ping(connection)
        finally:
            connection._read_timeout = usual

    engine.dialect.do_ping = limited  # type: ignore[method-assign]


def _run(work: Callable[..., T], *args: Any) -> T:

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


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("transaction is retried", extra={"error_code": error_code(error)})


def _mark_disconnects(context: ExceptionContext) -> None:
    """Mark the disconnects that SQLAlchemy does not recognize."""
    if error_code(context.original_exception) in CONNECTION_LOST:
        context.is_disconnect = True


def _after_fork() -> None:
    """Drop the inherited connections without closing them: they belong to the parent.

    An inherited session is kept referenced: collecting it would roll back the parent's work.
    """
    if engine is not None:
        _inherited.append(Session.registry)
        Session.registry = ThreadLocalRegistry(Session.session_factory)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_after_fork)
