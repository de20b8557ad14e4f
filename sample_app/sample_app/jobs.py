"""The background jobs. Each is wrapped in `job`, which always closes its session."""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from rq import get_current_job
from rq.timeouts import JobTimeoutException
from sqlalchemy import delete, update
from sqlalchemy.orm import Session as DbSession

from sample_app import cache, database, logs, notes, queues
from sample_app.database import Session
from sample_app.models import Run, utcnow

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])

RUN_LIFETIME = timedelta(days=1)


class IntentionalFailure(RuntimeError):
    """Raised by a diagnostic job, to test what a failing job leaves behind."""


def job(function: F) -> F:
    """Wrap a job: bind the request id to its log lines, and close its session at the end.

    A job has no request whose end would close the session. Without this, each failing job would
    hold a connection until MySQL has none left.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        current = get_current_job()
        request_id = current.meta.get("request_id") if current else None
        with logs.bound(request_id=request_id, job_id=current.id if current else None):
            try:
                log.info("job started", extra={"job": function.__name__})
                result = function(*args, **kwargs)
                log.info("job finished", extra={"job": function.__name__})
                return result
            except JobTimeoutException:
                Session.invalidate()  # a response may be half read
                raise
            except Exception as error:
                log.exception("job failed: %s", error, extra={"job": function.__name__})
                raise
            finally:
                Session.remove()

    return wrapper  # type: ignore[return-value]


@job
def word_count(note_id: int) -> None:
    """Count the words of a note; a second run changes nothing."""
    if database.run(notes.count_words, note_id):
        log.info("words counted", extra={"note_id": note_id})


@job
def diagnostic(batch: str, fail: bool, seconds: float = 0) -> None:
    """Take `seconds`, use a database connection, record the run, and fail on request."""
    token = uuid4().hex
    current = get_current_job()
    database.run(
        start_run,
        token,
        current.id,
        current.meta.get("release", "unknown"),
        current.enqueued_at,
    )
    time.sleep(seconds)
    database.run(finish_run, token)
    queues.record(
        batch,
        "failed" if fail else "finished",
        workers=cache.process_name(),
        connections=str(database.connection_id()),
        web_imported=str("sample_app.web" in sys.modules or "flask" in sys.modules),
    )
    if fail:
        raise IntentionalFailure("this job was queued to fail")


def start_run(
    session: DbSession, token: str, job_id: str, queued_by: str, queued_at: datetime
) -> None:
    """Record that a job was started, and which release queued it."""
    session.merge(
        Run(
            token=token,
            job=job_id,
            queued_by=queued_by,
            queued_at=queued_at.astimezone(UTC).replace(tzinfo=None),
            ran_by=queues.release,
            started_at=utcnow(),
            worker=cache.process_name(),
        )
    )


def finish_run(session: DbSession, token: str) -> None:
    """Record that a run finished."""
    session.execute(update(Run).where(Run.token == token).values(finished_at=utcnow()))


def delete_old_runs(session: DbSession) -> None:
    """Delete runs that are older than a day."""
    session.execute(delete(Run).where(Run.started_at < utcnow() - RUN_LIFETIME))
