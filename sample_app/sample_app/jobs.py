"""What the worker does. Every job goes through `job`, which cleans up after it, come what may."""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

from rq import get_current_job
from rq.timeouts import JobTimeoutException

from sample_app import database, logs, notes, queues, runs
from sample_app.database import Session

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])


class ExerciseFailure(RuntimeError):
    """Raised on purpose, to show that a failing job leaves nothing behind."""


def job(function: F) -> F:
    """Wrap a job: the request's id in its log lines, and no session left open after it.

    A background job has no request whose end would close its session; without this, every job that
    raises would keep a connection, until MySQL has none left.
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
                Session.invalidate()  # cut off in mid-answer: the connection cannot be used again
                raise
            except Exception as error:
                log.exception("job failed: %s", error, extra={"job": function.__name__})
                raise
            finally:
                Session.remove()

    return wrapper  # type: ignore[return-value]


@job
def stamp_note(note_id: int) -> None:
    """Stamp a note; doing it twice changes nothing."""
    if database.run(notes.stamp, note_id):
        log.info("note stamped", extra={"note_id": note_id})


@job
def exercise(batch: str, fail: bool, seconds: float = 0) -> None:
    """Take `seconds`, open a transaction and, if told so, raise in it; counted in the batch."""
    token = uuid4().hex
    current = get_current_job()
    if current:
        queued = (current.meta.get("release", "unknown"), current.enqueued_at)
        database.run(runs.begin, token, current.id, queued, queues.release)
    time.sleep(seconds)
    if current:
        database.run(runs.end, token)
    connection = database.connection_id()
    queues.record(
        batch,
        "failed" if fail else "finished",
        workers=f"{socket.gethostname()}:{os.getpid()}",
        connections=str(connection),
        web_imported=str("sample_app.web" in sys.modules or "flask" in sys.modules),
    )
    if fail:
        raise ExerciseFailure("this job was asked to fail")
