"""What the app knows of itself and of its visitor, as JSON: for the page's script and for tests."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, abort, g, jsonify, request, url_for
from flask.typing import ResponseReturnValue

from sample_app import cache, database, notes
from sample_app.models import Note
from sample_app.web.requests import number, settings

blueprint = Blueprint("status", __name__)

MAX_EVENTS = 20
MAX_PAUSE = 1.0  # seconds


def visitor() -> dict[str, Any]:
    """Return who the app thinks the visitor is, and what address it thinks it has itself."""
    return {
        "remote_addr": request.remote_addr,
        "scheme": request.scheme,
        "is_secure": request.is_secure,
        "host": request.host,
        "port": request.environ.get("SERVER_PORT"),
        "prefix": request.script_root,
        "url": url_for("guestbook.index", _external=True),
        "request_id": g.request_id,
    }


def responder() -> dict[str, Any]:
    """Return which process answers."""
    return {"release": settings().release, "pid": os.getpid(), "hostname": socket.gethostname()}


@blueprint.get("/whoami")
def whoami() -> ResponseReturnValue:
    """Return what the app believes about this request."""
    return jsonify(visitor() | responder())


@blueprint.get("/counter")
def read_counter() -> ResponseReturnValue:
    """Return the counter that all workers share."""
    return jsonify(responder() | {"value": cache.visits()})


@blueprint.post("/counter")
def count() -> ResponseReturnValue:
    """Add one, as opening the page does."""
    return jsonify(responder() | {"value": cache.count_visit()})


@blueprint.get("/cache")
def cached() -> ResponseReturnValue:
    """Return the remembered value: who made it, when, and who answers."""
    value = cache.digest(lambda: database.run(notes.totals))
    return jsonify(responder() | {"value": value})


@blueprint.get("/notes/<int:note_id>")
def note(note_id: int) -> ResponseReturnValue:
    """Return how far a note's job has come."""
    found = database.run(notes.get, note_id)
    if found is None:
        abort(404, "There is no such note.")
    return jsonify(stamp_of(found))


def stamp_of(found: Note) -> dict[str, Any]:
    """Return what the page shows of a note's job."""
    return {
        "id": found.id,
        "stamp": str(found.stamp),
        "words": found.words,
        "stamped_at": found.stamped_at.isoformat() + "Z" if found.stamped_at else None,
        "stamped_by": found.stamped_by,
    }


@blueprint.get("/stream")
def stream() -> ResponseReturnValue:
    """Send a few server-sent events, `count` of them `pause` seconds apart, then end.

    Nothing asks the proxy to hold its buffer back (no X-Accel-Buffering): whether each event
    arrives when it is sent shows whether the proxy is set up for it.
    """
    events = number("count", 5, MAX_EVENTS) or 1
    pause = number("pause", 0.5, MAX_PAUSE)

    def tell() -> Iterator[str]:
        for event in range(1, events + 1):
            yield f"id: {event}\nevent: tick\ndata: {time.time():.3f}\n\n"
            if event < events:
                time.sleep(pause)

    return Response(tell(), mimetype="text/event-stream")
