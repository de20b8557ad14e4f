"""What happens around every request: its id, its log line, its headers, the end of its session."""

from __future__ import annotations

import logging
import re
import time
from contextlib import ExitStack
from typing import TypeVar
from uuid import uuid4

from flask import Flask, Response, abort, current_app, g, request

from sample_app import logs
from sample_app.config import Settings
from sample_app.database import Session

Number = TypeVar("Number", int, float)

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
QUIET = frozenset({"health.alive", "health.ready", "static"})
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " object-src 'none'"
)


def init_app(app: Flask) -> None:
    """Register the hooks."""
    app.before_request(begin)
    app.after_request(finish)
    app.teardown_request(end)
    app.teardown_appcontext(lambda _error: Session.remove())


def number(name: str, default: Number, most: Number) -> Number:
    """Return a number of the URL's query, from 0 to `most`; anything else is answered with 400."""
    kind = type(default)
    try:
        value = kind(request.args.get(name, default))
    except ValueError:
        value = None
    if value is None or value != value:  # NaN, which no limit holds
        abort(400, f"{name} must be a {'whole ' if kind is int else ''}number.")
    return min(max(value, kind(0)), most)


def settings() -> Settings:
    """Return the settings of the app that answers."""
    found: Settings = current_app.config["SETTINGS"]
    return found


def request_id(given: str | None, trusted: bool) -> str:
    """Return the proxy's id, or a new one when there is no proxy or the id is not fit for a log."""
    if trusted and given and REQUEST_ID.fullmatch(given):
        return given
    return uuid4().hex


def begin() -> None:
    """Bind the request's id to the log, until `end`."""
    g.started = time.perf_counter()
    trusted = settings().trusted_proxy_hops > 0
    g.request_id = request_id(request.headers.get("X-Request-Id"), trusted)
    g.log_context = ExitStack()
    g.log_context.enter_context(logs.bound(request_id=g.request_id))


def finish(response: Response) -> Response:
    """Log the request and set the headers that belong to the app rather than to the proxy."""
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    if "request_id" not in g:
        return response
    if not settings().trusted_proxy_hops:
        response.headers["X-Request-Id"] = g.request_id  # otherwise nginx gives it
    log.log(
        logging.DEBUG if request.endpoint in QUIET else logging.INFO,
        "%s %s %s",
        request.method,
        request.path,
        response.status_code,
        extra={
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.started) * 1000, 1),
            "remote_addr": request.remote_addr,
        },
    )
    return response


def end(_error: BaseException | None) -> None:
    """Unbind the request's id."""
    if "log_context" in g:
        g.log_context.close()
