"""Which release queued a job and which one ran it: one row a run, so that a second one shows."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, update
from sqlalchemy.orm import Session as DbSession

from sample_app.models import Run, utcnow

KEEP = timedelta(days=1)


def begin(
    session: DbSession, token: str, job: str, queued: tuple[str, datetime | None], release: str
) -> None:
    """Note that `release` begins a job, and who `queued` it when; safe to repeat with one token."""
    queued_by, queued_at = queued
    session.merge(
        Run(
            token=token,
            job=job,
            queued_by=queued_by,
            queued_at=queued_at.astimezone(UTC).replace(tzinfo=None) if queued_at else utcnow(),
            ran_by=release,
            began_at=utcnow(),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
    )


def end(session: DbSession, token: str) -> None:
    """Note that a run came to its end."""
    session.execute(update(Run).where(Run.token == token).values(ended_at=utcnow()))


def forget(session: DbSession) -> None:
    """Drop the rows that are older than a day."""
    session.execute(delete(Run).where(Run.began_at < utcnow() - KEEP))
