"""The guest book without its web pages: write notes, read them and count their words."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session as DbSession

from sample_app import cache, database, logs, queues
from sample_app.models import Note, Tick, utcnow
from sample_app.resilient_redis import Unavailable

log = logging.getLogger(__name__)

PAGE_SIZE = 20


def add(author: str, body: str) -> tuple[int, bool]:
    """Save a note and queue its word count; return its id, and whether the job was queued.

    Raises SQLAlchemyError when the note was not saved.
    """
    request_id = logs.current_request_id()
    note_id = database.run(_insert, uuid4().hex, author, body, request_id)
    return note_id, _queue_word_count(note_id, request_id)


def requeue(note_id: int, request_id: str | None) -> bool:
    """Queue a note's word count again; return False when the queue is unavailable."""
    database.run(_set_queued_at, note_id, utcnow())
    return _queue_word_count(note_id, request_id)


def _queue_word_count(note_id: int, request_id: str | None) -> bool:
    """Queue the job; if the queue is unavailable, leave that to the scheduler."""
    try:
        queues.queue_word_count(note_id, request_id)
    except Unavailable:
        try:
            database.run(_set_queued_at, note_id, None)
        except SQLAlchemyError:
            log.warning("note is counted when its job is overdue", extra={"note_id": note_id})
        return False
    return True


def latest(session: DbSession, before: int | None = None) -> tuple[list[Note], bool]:
    """Return a page of notes, newest first, and whether there are older ones."""
    query = select(Note).order_by(Note.id.desc()).limit(PAGE_SIZE + 1)
    if before is not None:
        query = query.where(Note.id < before)
    notes = list(session.scalars(query))
    return notes[:PAGE_SIZE], len(notes) > PAGE_SIZE


def latest_ticks(session: DbSession, limit: int = 5) -> list[Tick]:
    """Return the scheduler's last ticks, newest first."""
    return list(session.scalars(select(Tick).order_by(Tick.slot.desc()).limit(limit)))


def get(session: DbSession, note_id: int) -> Note | None:
    """Return one note, or None."""
    return session.get(Note, note_id)


def totals(session: DbSession) -> dict[str, Any]:
    """Return the number of notes and of counted words."""
    notes, words = session.execute(
        select(func.count(), func.coalesce(func.sum(Note.word_count), 0)).select_from(Note)
    ).one()
    return {"notes": int(notes), "words": int(words)}


def count_words(session: DbSession, note_id: int) -> bool:
    """Count a note's words; return False if that was already done."""
    note = session.get(Note, note_id, with_for_update=True)
    if note is None or note.word_count is not None:
        return False
    note.word_count = len(note.body.split())
    note.counted_by = cache.process_name()
    return True


def without_job(session: DbSession, overdue: float, limit: int = 100) -> list[tuple[int, str]]:
    """Return id and request id of notes that were not queued, or not for `overdue` seconds."""
    lost = or_(Note.queued_at.is_(None), Note.queued_at < utcnow() - timedelta(seconds=overdue))
    query = select(Note.id, Note.request_id).where(Note.word_count.is_(None), lost)
    return [tuple(row) for row in session.execute(query.order_by(Note.id).limit(limit))]


def _insert(session: DbSession, token: str, author: str, body: str, request_id: str | None) -> int:
    """Insert a note once: a repeated transaction returns the note that was already committed."""
    note = Note(token=token, author=author, body=body, request_id=request_id, queued_at=utcnow())
    session.add(note)
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        return session.scalars(select(Note.id).where(Note.token == token)).one()
    return note.id


def _set_queued_at(session: DbSession, note_id: int, moment: datetime | None) -> None:
    session.execute(update(Note).where(Note.id == note_id).values(queued_at=moment))
