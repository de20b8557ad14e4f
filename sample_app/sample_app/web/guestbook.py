"""The guest book's page, its form, and the status of a note's job."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, abort, flash, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm
from sqlalchemy.orm import Session as DbSession
from wtforms import HiddenField, StringField, TextAreaField
from wtforms.validators import DataRequired, Length

from sample_app import cache, database, notes, queues
from sample_app.models import Note, Tick
from sample_app.resilient_redis import Unavailable
from sample_app.web.requests import client_info, process_info, settings

blueprint = Blueprint("guestbook", __name__)


class NoteForm(FlaskForm):
    """The form for a note; `next` is the page to go to afterwards."""

    author = StringField("Your name", validators=[DataRequired(), Length(max=60)])
    body = TextAreaField("Your note", validators=[DataRequired(), Length(max=1000)])
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
    return jsonify(id=found.id, word_count=found.word_count, counted_by=found.counted_by)


@blueprint.get("/stats")
def stats() -> ResponseReturnValue:
    """Return the number of notes and words, and which process counted them."""
    return jsonify(process_info() | {"value": _stats()})


def safe_target(target: str | None, fallback: str) -> str:
    r"""Return `target` if it is a path on this host, otherwise `fallback`.

    Browsers accept many spellings of another host: `//evil`, `/\evil`, tabs inside.
    """
    return target if target and re.fullmatch(r"/([!-.0-\[\]-~][!-\[\]-~]*)?", target) else fallback


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


def _stats() -> dict[str, Any]:
    """Return the statistics, counted once for all workers; raises Unavailable."""
    return cache.stats(lambda: database.run(notes.totals))


def _redis_values() -> dict[str, Any]:
    """Return the values from Redis; the page is also complete without them."""
    values: dict[str, Any] = {"visits": None, "stats": None, "jobs": None, "outages": []}
    for read in (
        lambda: {"visits": cache.count_visit(), "stats": _stats()},
        lambda: {"jobs": queues.stats()},
    ):
        try:
            values |= read()
        except Unavailable as error:
            values["outages"].append(error)
    return values
