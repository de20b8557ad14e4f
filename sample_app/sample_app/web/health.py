"""For the machinery: whether the process is alive, and whether it can do its work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue
from redis.exceptions import TimeoutError
from sqlalchemy import text

from sample_app import cache, database, queues
from sample_app.web.requests import settings

# Seconds in which what did not answer in time is asked again: a busy host stays in service.
PATIENCE = 2

log = logging.getLogger(__name__)
blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> ResponseReturnValue:
    """Answer while the process works; touches nothing, so no outage elsewhere restarts it."""
    return jsonify(status="alive", release=settings().release)


@blueprint.get("/readyz")
def ready() -> ResponseReturnValue:
    """Answer 200 when MySQL and both Redis instances do, else 503; each with its state.

    Asked directly, past the breakers, so that the answer is about now.
    """
    checks = {
        "mysql": _check("mysql", lambda: database.Session.execute(text("SELECT 1"))),
        "cache": _check("cache", lambda: cache.guard.client.ping()),
        "queue": _check("queue", lambda: queues.guard.client.ping()),
    }
    up = all(check["state"] == "up" for check in checks.values())
    body = {"status": "ready" if up else "unready", "release": settings().release, "checks": checks}
    return jsonify(body), 200 if up else 503


def _check(name: str, ask: Callable[[], object]) -> dict[str, object]:
    """Return the state of one; the error's kind only, as its text may hold an address."""
    started = time.perf_counter()
    while True:
        try:
            ask()
        except Exception as error:
            late = isinstance(error, TimeoutError)
            if late and time.perf_counter() - started < PATIENCE:
                continue
            log.warning("%s is down: %s", name, error)
            return {"state": "down", "error": type(error).__name__}
        return {"state": "up", "ms": round((time.perf_counter() - started) * 1000, 1)}
