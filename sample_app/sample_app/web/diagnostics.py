"""Test-only routes, registered only when DIAGNOSTICS_KEY is set.

Routes that cost time need the key in the header X-Api-Key; the others show what the app sees.
"""

from __future__ import annotations

import functools
import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from flask import Blueprint, Response, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import text
from sqlalchemy.orm import Session as DbSession

from sample_app import cache, database, jobs, queues
from sample_app.web.requests import client_info, process_info, settings

blueprint = Blueprint("diagnostics", __name__)
Number = TypeVar("Number", int, float)
View = TypeVar("View", bound=Callable[..., ResponseReturnValue])

MAX_JOBS = 1000
MAX_JOB_SECONDS = 10
MAX_QUERY_SECONDS = 90.0
MAX_EVENTS = 20
MAX_PAUSE = 1.0  # seconds
SLEEP = 0.1  # seconds; MySQL allows 1000 recursions

# When MySQL interrupts a query that only calls SLEEP(), it returns 1. A query with more rows fails.
SLOW_QUERY = text(
    "WITH RECURSIVE sleeps (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM sleeps WHERE n < :count)"
    " SELECT SUM(SLEEP(:sleep)) FROM sleeps"
)


def key_required(view: View) -> View:
    """Require the key: 401 without one, 403 with a wrong one."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> ResponseReturnValue:
        given = request.headers.get("X-Api-Key")
        if not given:
            abort(401, "Send the key in the header X-Api-Key.")
        if not hmac.compare_digest(given.encode(), settings().diagnostics_key.encode()):
            abort(403, "The key is wrong.")
        return view(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


@blueprint.get("/whoami")
def whoami() -> ResponseReturnValue:
    """Return what the app sees of this request, and which process responds."""
    return jsonify(client_info() | process_info())


@blueprint.post("/counter")
def counter() -> ResponseReturnValue:
    """Increment the visit counter and return it."""
    return jsonify(process_info() | {"value": cache.count_visit()})


@blueprint.get("/stream")
def stream() -> ResponseReturnValue:
    """Send `count` server-sent events, `pause` seconds apart.

    There is no X-Accel-Buffering header, since tests check that the proxy does not buffer.
    """
    count = limited(request.args.get("count", 5), MAX_EVENTS)
    pause = limited(request.args.get("pause", 0.5), MAX_PAUSE)

    def events() -> Iterator[str]:
        for number in range(1, count + 1):
            yield f"id: {number}\nevent: tick\ndata: {time.time():.3f}\n\n"
            if number < count:
                time.sleep(pause)

    return Response(events(), mimetype="text/event-stream")


@blueprint.get("/slow")
@key_required
def slow() -> ResponseReturnValue:
    """Run a query that takes `seconds`, to show which timeout stops it."""
    seconds = limited(request.args.get("seconds", 1), MAX_QUERY_SECONDS)
    database.run(_run_slow_query, seconds)
    return jsonify(slept=seconds)


@blueprint.post("/jobs")
@key_required
def queue_jobs() -> ResponseReturnValue:
    """Queue `count` jobs of `seconds`, of which every `fail_every`-th fails."""
    body = request.get_json()
    count = limited(body.get("count", 1), MAX_JOBS)
    fail_every = limited(body.get("fail_every", 0), MAX_JOBS)
    batch = queues.queue_batch(count, fail_every, limited(body.get("seconds", 0), MAX_JOB_SECONDS))
    url = url_for("diagnostics.read_batch", batch=batch)
    return jsonify(batch=batch, queued=count, url=url), 202, {"Location": url}


@blueprint.get("/jobs/<batch>")
@key_required
def read_batch(batch: str) -> ResponseReturnValue:
    """Return how many jobs of a batch finished and failed, and where they ran."""
    return jsonify(database.run(jobs.batch_stats, batch))


def limited(value: object, most: Number) -> Number:
    """Return a value as a number from 0 to `most`; 400 if it is not a number."""
    try:
        return min(most, max(type(most)(0), type(most)(value)))
    except (TypeError, ValueError):
        abort(400, f"{value!r} is not a {type(most).__name__}.")


def _run_slow_query(session: DbSession, seconds: float) -> None:
    session.execute(SLOW_QUERY, {"count": max(1, round(seconds / SLEEP)), "sleep": SLEEP})
