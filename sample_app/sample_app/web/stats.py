"""The statistics of the guest book, as JSON: counted once, then shared by all workers."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from sample_app import cache, database, notes
from sample_app.web.requests import process_info

blueprint = Blueprint("stats", __name__)


def read() -> dict[str, Any]:
    """Return the cached statistics; raises Unavailable."""
    return cache.stats(lambda: database.run(notes.totals))


@blueprint.get("/stats")
def stats() -> ResponseReturnValue:
    """Return the number of notes and words, and which process counted them."""
    return jsonify(process_info() | {"value": read()})
