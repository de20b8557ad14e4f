"""Health checks: whether the process is alive, and whether it can do its work."""

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

RETRY_PERIOD = 2  # seconds of retries after a timeout, so that a busy host stays in service

log = logging.getLogger(__name__)
blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> ResponseReturnValue:
    """Return 200 while the process works. An outage elsewhere must not restart it."""
    return jsonify(status="alive", release=settings().release)


@blueprint.get("/readyz")
def ready() -> ResponseReturnValue:
    """Return 200 when MySQL and both Redis instances respond now, bypassing the breakers."""
    checks = {
        "mysql": _check("mysql", lambda: database.Session.execute(text("SELECT 1"))),
        "cache": _check("cache", lambda: cache.instance.client.ping()),
        "queue": _check("queue", lambda: queues.instance.client.ping()),
    }
    up = all(check["state"] == "up" for check in checks.values())
    body = {"status": "ready" if up else "unready", "release": settings().release, "checks": checks}
    return jsonify(body), 200 if up else 503


def _check(name: str, request: Callable[[], object]) -> dict[str, object]:
    """Return one service's state. Only the type of an error is shown: its text may name hosts."""
    started = time.perf_counter()
    while True:
        try:
            request()
        except Exception as error:
            elapsed = time.perf_counter() - started
            if isinstance(error, TimeoutError) and elapsed < RETRY_PERIOD:
                continue
            log.warning("%s is down: %s", name, error)
            return {"state": "down", "error": type(error).__name__}
        return {"state": "up", "ms": round((time.perf_counter() - started) * 1000, 1)}
