"""The background jobs. Each is wrapped in `job`, which always closes its session."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from rq import get_current_job
from rq.job import Job
from rq.timeouts import JobTimeoutException
from sqlalchemy import delete, func, select, update
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

    The end of a request closes its session, but a job has no request. Without this, each failing
    job would hold a connection, until MySQL has no free one.
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
def diagnostic(fail: bool, seconds: float = 0) -> None:
    """Take `seconds`, use a database connection, record the run, and fail on request."""
    token = uuid4().hex
    database.run(start_run, token, get_current_job())
    time.sleep(seconds)
    database.run(finish_run, token, fail)
    if fail:
        raise IntentionalFailure("this job was queued to fail")


def start_run(session: DbSession, token: str, current: Job) -> None:
    """Record that a job was started, and which release queued it. A retry records it once."""
    session.merge(
        Run(
            token=token,
            job=current.id,
            queued_by=current.meta.get("release", "unknown"),
            queued_at=current.enqueued_at.astimezone(UTC).replace(tzinfo=None),
            ran_by=queues.release,
            started_at=utcnow(),
            worker=cache.process_name(),
            connection=session.scalar(select(func.connection_id())),
        )
    )


def finish_run(session: DbSession, token: str, failed: bool) -> None:
    """Record the end of a run."""
    values = {"finished_at": utcnow(), "failed": failed}
    session.execute(update(Run).where(Run.token == token).values(values))


def batch_stats(session: DbSession, batch: str) -> dict[str, Any]:
    """Return how many jobs of a batch finished and failed, and where they ran."""
    runs = session.scalars(
        select(Run).where(Run.job.startswith(f"diagnostic-{batch}-", autoescape=True))
    ).all()
    ended = [run.failed for run in runs if run.finished_at]
    return {
        "finished": ended.count(False),
        "failed": ended.count(True),
        "workers": sorted({run.worker for run in runs}),
        "connections": sorted({run.connection for run in runs}),
    }


def delete_old_runs(session: DbSession) -> None:
    """Delete runs that are older than a day."""
    session.execute(delete(Run).where(Run.started_at < utcnow() - RUN_LIFETIME))
