"""One answer for every failure: a page for browsers, JSON for programs, a log line for us."""

from __future__ import annotations

import errno
import logging

from flask import Flask, Response, current_app, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from werkzeug.exceptions import HTTPException

from sample_app import database
from sample_app.database import Session
from sample_app.redis_guard import Unavailable

log = logging.getLogger(__name__)

PROGRAMS = frozenset({"health", "hooks", "status"})  # blueprints that answer in JSON
RETRY_AFTER = "5"  # seconds


def init_app(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(OperationalError, database_error)
    app.register_error_handler(DBAPIError, database_error)
    app.register_error_handler(TimeoutError, database_error)
    app.register_error_handler(Unavailable, redis_error)
    app.register_error_handler(OSError, system_error)


def http_error(error: HTTPException) -> ResponseReturnValue:
    """Answer an HTTP error (404, 405, 413, …; 500 for whatever nobody caught)."""
    if error.response is not None:
        return error.response
    status = error.code or 500
    answer = respond(status, _code(error), error.description or "")
    answer.headers.extend(  # such as Allow
        (name, value) for name, value in error.get_headers() if name != "Content-Type"
    )
    return answer


def database_error(error: DBAPIError | TimeoutError) -> ResponseReturnValue:
    """Answer 503 when MySQL is gone, busy, or has stopped a statement; 500 for our own mistakes."""
    Session.remove()
    if not database.is_outage(error):
        log.exception("database error: %s", error)
        return respond(500, "internal_server_error", "Something went wrong on our side.")
    code, sentence = database.explain(error)
    log.warning("%s: %s", code, getattr(error, "orig", error), extra={"error": code})
    return respond(503, code, sentence)


def redis_error(error: Unavailable) -> ResponseReturnValue:
    """Answer 503 where nothing can be done without that Redis instance."""
    return respond(503, f"{error.instance}_unavailable", f"The {error.instance}: {error.reason}.")


def system_error(error: OSError) -> ResponseReturnValue:
    """Answer 503 when a disk is full, such as for an upload; raises whatever else it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    log.error("%s", error)
    return respond(503, "disk_full", "There is no room to save anything. Please try again later.")


def respond(status: int, code: str, sentence: str) -> Response:
    """Return the answer in the form that the client reads."""
    request_id = g.get("request_id")
    if wants_json():
        answer = jsonify(error=code, message=sentence, request_id=request_id)
    else:
        answer = current_app.make_response(
            render_template("error.html", status=status, sentence=sentence, request_id=request_id)
        )
    answer.status_code = status
    if status == 503:
        answer.headers["Retry-After"] = RETRY_AFTER
    return answer


def wants_json() -> bool:
    """Say whether a program asked."""
    if request.blueprint in PROGRAMS:
        return True
    accepted = request.accept_mimetypes
    return accepted.best_match(["text/html", "application/json"], "text/html") != "text/html"


def _code(error: HTTPException) -> str:
    return error.name.lower().replace(" ", "_")
