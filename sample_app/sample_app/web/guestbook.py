"""The guest book's page, its form, and the status of a note's job."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, abort, flash, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm
from sqlalchemy.orm import Session as DbSession
from wtforms import HiddenField, StringField, TextAreaField
from wtforms.validators import DataRequired, Length

from sample_app import cache, database, notes, queues
from sample_app.models import Note, Tick
from sample_app.resilient_redis import Unavailable
from sample_app.web import stats
from sample_app.web.requests import client_info, process_info, settings

blueprint = Blueprint("guestbook", __name__)


def _strip(value: str | None) -> str | None:
    return value.strip() if value else value


class NoteForm(FlaskForm):
    """The form for a note; `next` is the page to go to afterwards."""

    author = StringField(
        "Your name",
        filters=[_strip],
        validators=[DataRequired("Please enter a name."), Length(max=60)],
    )
    body = TextAreaField(
        "Your note",
        filters=[_strip],
        validators=[DataRequired("Please write something."), Length(max=1000)],
    )
    next = HiddenField()


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Show the guest book and the state of its servers."""
    return _page(NoteForm(formdata=None))


@blueprint.post("/notes")
def write() -> ResponseReturnValue:
    """Save a note, queue its word count, and redirect."""
    form = NoteForm()
    if not form.validate():
        return _page(form), 422
    note_id, queued = notes.add(form.author.data, form.body.data)
    if queued:
        flash("Thank you! Your note is in the book.", "good")
    else:
        flash(
            "Your note is saved, but its words could not be counted: the job queue is not"
            " available. They will be counted later.",
            "warning",
        )
    index_url = url_for("guestbook.index", _anchor=f"note-{note_id}")
    return redirect(safe_target(form.next.data, index_url), 303)


@blueprint.get("/notes/<int:note_id>")
def note(note_id: int) -> ResponseReturnValue:
    """Return the status of a note's word count."""
    found = database.run(notes.get, note_id)
    if found is None:
        abort(404, "There is no such note.")
    return jsonify(
        id=found.id,
        job_status=str(found.job_status),
        word_count=found.word_count,
        counted_by=found.counted_by,
    )


def safe_target(target: str | None, fallback: str) -> str:
    r"""Return `target` if it is a path on this host, otherwise `fallback`.

    Browsers accept many spellings of another host: `//evil`, `/\evil`, `https:evil`, tabs inside.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return fallback
    if "\\" in target or any(ord(character) < 33 or ord(character) == 127 for character in target):
        return fallback
    try:
        parts = urlsplit(target)
    except ValueError:
        return fallback
    return fallback if parts.scheme or parts.netloc else target


def _page(form: NoteForm) -> str:
    before = request.args.get("before", None, int)
    found, more, ticks = database.run(_read, before)
    return render_template(
        "index.html",
        form=form,
        next=safe_target(request.values.get("next"), ""),
        notes=found,
        older=found[-1].id if more else None,
        before=before,
        ticks=ticks,
        lifetime=cache.STATS_LIFETIME,
        interval=settings().scheduler_interval,
        client=client_info(),
        process=process_info(),
        **_redis_values(),
    )


def _read(session: DbSession, before: int | None) -> tuple[list[Note], bool, list[Tick]]:
    found, more = notes.latest(session, before)
    return found, more, notes.latest_ticks(session)


def _redis_values() -> dict[str, Any]:
    """Return the values from Redis; the page is also complete without them."""
    values: dict[str, Any] = {"visits": None, "stats": None, "jobs": None, "outages": []}
    try:
        values["visits"] = cache.count_visit()
        values["stats"] = stats.read()
    except Unavailable as error:
        values["outages"].append(error)
    try:
        values["jobs"] = queues.stats()
    except Unavailable as error:
        values["outages"].append(error)
    return values
