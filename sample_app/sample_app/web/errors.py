"""Error handlers: a page for browsers, JSON for programs, and a log line."""

from __future__ import annotations

import errno
import logging

from flask import Flask, Response, g, jsonify, make_response, render_template, request
from sqlalchemy.exc import DBAPIError, TimeoutError
from werkzeug.exceptions import HTTPException

from sample_app import database
from sample_app.resilient_redis import Unavailable

log = logging.getLogger(__name__)

RETRY_AFTER = "5"  # seconds


def init_app(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(DBAPIError, database_error)
    app.register_error_handler(TimeoutError, database_error)
    app.register_error_handler(Unavailable, redis_error)
    app.register_error_handler(OSError, system_error)


def http_error(error: HTTPException) -> Response:
    """Respond to an HTTP error; an uncaught exception is a 500."""
    code = error.name.lower().replace(" ", "_")
    response = respond(error.code or 500, code, error.description or "")
    response.headers.extend(  # for example Allow
        (name, value) for name, value in error.get_headers() if name != "Content-Type"
    )
    return response


def database_error(error: DBAPIError | TimeoutError) -> Response:
    """Respond with 503 when MySQL is down, busy or stopped a statement, and otherwise with 500."""
    database.Session.remove()
    if not database.is_outage(error):
        log.exception("database error: %s", error)
        return respond(500, "internal_server_error", "Something went wrong.")
    code, message = database.explain(error)
    log.warning("%s: %s", code, getattr(error, "orig", error), extra={"error": code})
    return respond(503, code, message)


def redis_error(error: Unavailable) -> Response:
    """Respond with 503 where the Redis instance is required."""
    return respond(503, f"{error.instance}_unavailable", f"The {error.instance}: {error.reason}.")


def system_error(error: OSError) -> Response:
    """Respond with 503 when the disk is full; raises every other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    log.error("%s", error)
    return respond(503, "disk_full", "The disk is full. Please try again later.")


def respond(status: int, code: str, message: str) -> Response:
    """Return a page if the `Accept` header names text/html, as in browsers, and otherwise JSON."""
    values = {"message": message, "request_id": g.get("request_id")}
    if "text/html" in request.accept_mimetypes.values():
        response = make_response(render_template("error.html", status=status, **values))
    else:
        response = jsonify(error=code, **values)
    response.status_code = status
    if status == 503:
        response.headers["Retry-After"] = RETRY_AFTER
    return response
