"""The guest book itself, without a web around it: write, read, stamp."""

from __future__ import annotations

import logging
import os
import socket
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session as DbSession

from sample_app import database, logs, queues
from sample_app.models import Note, Stamp, Tick, utcnow
from sample_app.redis_guard import Unavailable

log = logging.getLogger(__name__)

PAGE = 20  # notes on a page
OVERDUE = timedelta(minutes=5)  # a job that takes longer is taken for lost


def add(author: str, body: str) -> tuple[int, bool]:
    """Save a note and queue its stamp; return its id and whether the job could be queued.

    Raises SQLAlchemyError when the note was not saved. Without the queue the note is still saved,
    and the scheduler queues the job later.
    """
    request_id = logs.current_request_id()
    note_id = database.run(_insert, uuid4().hex, author, body, request_id)
    return note_id, _queue(note_id, request_id)


def queue_again(note_id: int, request_id: str | None) -> bool:
    """Queue a note's stamp once more; return False when the queue is gone."""
    database.run(_mark, note_id, Stamp.PENDING)
    return _queue(note_id, request_id)


def _queue(note_id: int, request_id: str | None) -> bool:
    """Queue the stamp, or mark the note as waiting for the scheduler to do so."""
    try:
        queues.queue_stamp(note_id, request_id)
    except Unavailable:
        try:
            database.run(_mark, note_id, Stamp.WAITING)
        except SQLAlchemyError:
            log.warning("note left pending: it is queued when overdue", extra={"note_id": note_id})
        return False
    return True


def latest(session: DbSession, before: int | None = None) -> tuple[list[Note], bool]:
    """Return the newest notes (older than id `before`), and whether there are more."""
    query = select(Note).order_by(Note.id.desc()).limit(PAGE + 1)
    if before is not None:
        query = query.where(Note.id < before)
    notes = list(session.scalars(query))
    return notes[:PAGE], len(notes) > PAGE


def ticks(session: DbSession, limit: int = 5) -> list[Tick]:
    """Return the scheduler's last ticks, newest first."""
    return list(session.scalars(select(Tick).order_by(Tick.slot.desc()).limit(limit)))


def get(session: DbSession, note_id: int) -> Note | None:
    """Return one note, or None."""
    return session.get(Note, note_id)


def totals(session: DbSession) -> dict[str, Any]:
    """Return how many notes and counted words there are: the value worth caching."""
    notes, words = session.execute(
        select(func.count(), func.coalesce(func.sum(Note.words), 0)).select_from(Note)
    ).one()
    return {"notes": int(notes), "words": int(words)}


def stamp(session: DbSession, note_id: int) -> bool:
    """Count a note's words and stamp it; return False when that was already done."""
    note = session.get(Note, note_id, with_for_update=True)
    if note is None or note.stamp == Stamp.DONE:
        return False
    note.words = len(note.body.split())
    note.stamp = Stamp.DONE
    note.stamped_at = utcnow()
    note.stamped_by = f"{socket.gethostname()}:{os.getpid()}"
    return True


def unqueued(session: DbSession, now: datetime, limit: int = 100) -> list[tuple[int, str | None]]:
    """Return notes that no job is likely to stamp: never queued, or long overdue.

    One that was queued in time to come is overdue, too: the clock was set back.
    """
    late = or_(Note.queued_at < now - OVERDUE, Note.queued_at > now + OVERDUE)
    query = (
        select(Note.id, Note.request_id)
        .where(
            or_(
                Note.stamp == Stamp.WAITING,
                (Note.stamp == Stamp.PENDING) & late,
            )
        )
        .order_by(Note.id)
        .limit(limit)
    )
    return [(note_id, request_id) for note_id, request_id in session.execute(query)]


def _insert(session: DbSession, token: str, author: str, body: str, request_id: str | None) -> int:
    """Insert once: when a repeated try finds the token, the first one had been committed."""
    note = Note(token=token, author=author, body=body, request_id=request_id)
    session.add(note)
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        return session.scalars(select(Note.id).where(Note.token == token)).one()
    return note.id


def _mark(session: DbSession, note_id: int, stamp: Stamp) -> None:
    """Say where a note's job is, unless the job was quicker."""
    session.execute(
        update(Note)
        .where(Note.id == note_id, Note.stamp != Stamp.DONE)
        .values(stamp=stamp, queued_at=utcnow())
        .execution_options(synchronize_session=False)
    )
