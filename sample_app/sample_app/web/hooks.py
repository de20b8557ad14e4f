"""For programs that hold the key: queue jobs, ask how they went, run a slow query."""

from __future__ import annotations

import hmac

from flask import Blueprint, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import text
from sqlalchemy.orm import Session as DbSession

from sample_app import database, queues
from sample_app.web import errors
from sample_app.web.requests import number, settings

blueprint = Blueprint("hooks", __name__)

MAX_JOBS = 2000
MAX_SECONDS = 10  # of a job
MAX_SLOW = 90.0  # seconds
NAP = 0.1  # seconds; MySQL allows 1000 rows of recursion, so at most 100 seconds

# SLEEP() alone would return 1 on MySQL when it is cut off; among other rows it fails as it should
SLOW = text(
    "WITH RECURSIVE naps (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM naps WHERE n < :naps)"
    " SELECT SUM(SLEEP(:nap)) FROM naps"
)


@blueprint.before_request
def check_key() -> ResponseReturnValue | None:
    """Let nobody in without the key: 401 without one, 403 with a wrong one."""
    expected = settings().hook_api_key
    if not expected:
        return errors.respond(503, "hooks_off", "The hooks are off: HOOK_API_KEY is not set.")
    given = request.headers.get("X-Api-Key")
    if not given:
        return errors.respond(401, "key_missing", "Send the key in the header X-Api-Key.")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        return errors.respond(403, "key_wrong", "This is not the key.")
    return None


@blueprint.post("/hooks/jobs")
def queue_jobs() -> ResponseReturnValue:
    """Queue `count` jobs of `seconds`; every `fail_every`-th raises; 202 with where to ask."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        abort(400, 'Send a JSON object, such as {"count": 10, "fail_every": 3}.')
    count = _number(body, "count", 1, 1, MAX_JOBS)
    fail_every = _number(body, "fail_every", 0, 0, MAX_JOBS)
    seconds = _number(body, "seconds", 0, 0, MAX_SECONDS)
    batch = queues.queue_batch(count, fail_every, seconds)
    address = url_for("hooks.batch", batch=batch)
    return jsonify(batch=batch, queued=count, url=address), 202, {"Location": address}


@blueprint.get("/hooks/jobs/<batch>")
def batch(batch: str) -> ResponseReturnValue:
    """Return how many of a batch were queued, have finished, have failed, and where they ran."""
    found = queues.batch_stats(batch)
    if found is None:
        abort(404, "There is no such batch; they are kept for an hour.")
    return jsonify(found)


@blueprint.get("/hooks/jobs")
def stats() -> ResponseReturnValue:
    """Return how many jobs wait, and how many workers listen."""
    return jsonify(queues.stats())


@blueprint.get("/slow")
def slow() -> ResponseReturnValue:
    """Run a query that takes `seconds`, to show which limit of the chain ends it."""
    seconds = number("seconds", 1.0, MAX_SLOW)
    database.run(_sleep, seconds)
    return jsonify(slept=seconds)


def _sleep(session: DbSession, seconds: float) -> None:
    session.execute(SLOW, {"naps": max(1, round(seconds / NAP)), "nap": NAP})


def _number(body: dict[str, object], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        abort(400, f"{name} must be a whole number from {least} to {most}.")
    return value
