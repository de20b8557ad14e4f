"""The page that a person opens, and the form on it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf import FlaskForm
from sqlalchemy.orm import Session as DbSession
from wtforms import HiddenField, StringField, TextAreaField
from wtforms.validators import DataRequired, Length

from sample_app import cache, database, notes, queues
from sample_app.models import Note, Tick
from sample_app.redis_guard import Unavailable
from sample_app.web.redirects import safe_target
from sample_app.web.requests import settings
from sample_app.web.status import responder, visitor

blueprint = Blueprint("guestbook", __name__)


def _strip(value: str | None) -> str | None:
    return value.strip() if value else value


class NoteForm(FlaskForm):
    """A name and a few words; `next` is where to go after it."""

    author = StringField(
        "Your name",
        filters=[_strip],
        validators=[DataRequired("Please give a name."), Length(max=60)],
    )
    body = TextAreaField(
        "Your note",
        filters=[_strip],
        validators=[DataRequired("Please write something."), Length(max=1000)],
    )
    next = HiddenField()


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Show the guest book, and live what the stack promises."""
    return _page(NoteForm(formdata=None))


@blueprint.post("/notes")
def write() -> ResponseReturnValue:
    """Save a note, queue its stamp, and send the visitor back."""
    form = NoteForm()
    if not form.validate():
        return _page(form), 422
    note_id, queued = notes.add(form.author.data, form.body.data)
    if queued:
        flash("Thank you! Your note is in the book.", "good")
    else:
        flash(
            "Your note is saved, but its stamp could not be queued:"
            " the job queue is not reachable. It will be stamped when the queue is back.",
            "warning",
        )
    home = url_for("guestbook.index", _anchor=f"note-{note_id}")
    return redirect(safe_target(form.next.data, home), 303)


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
        lifetime=cache.DIGEST_LIFETIME,
        interval=settings().scheduler_interval,
        visitor=visitor(),
        responder=responder(),
        **_shared(),
    )


def _read(session: DbSession, before: int | None) -> tuple[list[Note], bool, list[Tick]]:
    found, more = notes.latest(session, before)
    return found, more, notes.ticks(session)


def _shared() -> dict[str, Any]:
    """Return what comes from Redis; without it the page says so and shows the rest."""
    shared: dict[str, Any] = {"visits": None, "digest": None, "jobs": None, "missing": []}
    try:
        shared["visits"] = cache.count_visit()
        shared["digest"] = cache.digest(lambda: database.run(notes.totals))
    except Unavailable as error:
        shared["missing"].append(error)
    try:
        shared["jobs"] = queues.stats()
    except Unavailable as error:
        shared["missing"].append(error)
    return shared
