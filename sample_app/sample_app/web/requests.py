"""Give every request an id, a log line and response headers, and close its database session."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Flask, Response, current_app, g, request, url_for

from sample_app import logs
from sample_app.config import Settings
from sample_app.database import Session
from sample_app.web import metrics

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
QUIET = frozenset({"health.alive", "health.ready", "metrics.show", "static"})
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " object-src 'none'"
)


def init_app(app: Flask) -> None:
    """Register the request hooks, and add the content hash to URLs of static files."""
    app.before_request(start_request)
    app.after_request(finish_request)
    app.teardown_request(close_log_context)
    app.teardown_appcontext(lambda _error: Session.remove())

    @functools.cache
    def file_version(filename: str) -> str:
        path = Path(str(app.static_folder)) / filename
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "0"

    @app.url_defaults
    def add_file_version(endpoint: str, values: dict[str, Any]) -> None:
        """Change the URL of a static file with its content, so that it can be cached forever."""
        if endpoint == "static" and "filename" in values:
            values.setdefault("v", file_version(values["filename"]))


def settings() -> Settings:
    """Return the settings of the current app."""
    found: Settings = current_app.config["SETTINGS"]
    return found


def client_info() -> dict[str, Any]:
    """Return what the app sees of the client and of its own address."""
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


def process_info() -> dict[str, Any]:
    """Return which process responds."""
    return {"release": settings().release, "pid": os.getpid(), "hostname": socket.gethostname()}


def start_request() -> None:
    """Bind the request id to the log: the proxy's id if it is trusted and valid, or a new one."""
    g.started = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    valid = settings().trusted_proxy_hops and REQUEST_ID.fullmatch(given)
    g.request_id = given if valid else uuid4().hex
    g.log_context = ExitStack()
    g.log_context.enter_context(logs.bound(request_id=g.request_id))


def finish_request(response: Response) -> Response:
    """Log the request, and set the headers that the app is responsible for."""
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.endpoint != "static":
        response.headers.setdefault("Cache-Control", "no-store")
    if "request_id" not in g:
        return response
    if not settings().trusted_proxy_hops:  # otherwise nginx sets it
        response.headers["X-Request-Id"] = g.request_id
    seconds = time.perf_counter() - g.started
    metrics.count(request.method, response.status_code, seconds)
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
            "duration_ms": round(seconds * 1000, 1),
            "remote_addr": request.remote_addr,
        },
    )
    return response


def close_log_context(_error: BaseException | None) -> None:
    """Unbind the request id."""
    if "log_context" in g:
        g.log_context.close()
