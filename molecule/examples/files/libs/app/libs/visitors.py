"""Limits, cached pages, sessions, sockets and metrics."""

import os

from flask import Blueprint, Flask, request, session
from flask_caching import Cache
from flask_limiter import Limiter
from flask_session import Session
from flask_socketio import SocketIO
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

blueprint = Blueprint("visitors", __name__)
pages = Cache()
limiter = Limiter(key_func=lambda: request.args["visitor"])
socketio = SocketIO()
VISITS = Counter("visits", "Visits of all workers")
WORKERS = Gauge("workers", "Running workers", multiprocess_mode="livesum")


def init_app(app: Flask) -> None:
    """Set up each extension."""
    pages.init_app(app)
    limiter.init_app(app)
    Session(app)
    socketio.init_app(app, message_queue=os.environ["QUEUE_URL"])


@blueprint.get("/healthz")
def health() -> str:
    """Return 200 while the app is alive."""
    return "ok"


@blueprint.get("/limited")
@limiter.limit("2 per minute")
def limited() -> str:
    """Return 200, but only twice per minute."""
    return "ok"


@blueprint.get("/cached/<name>")
@pages.cached()
def cached(name: str) -> str:
    """Return the same page until the cache is cleared."""
    return f"{name} {os.urandom(8).hex()}"


@blueprint.post("/clear")
def clear() -> str:
    """Empty the cache."""
    return str(pages.clear())


@blueprint.post("/session/<value>")
def remember(value: str) -> str:
    """Save a value in the session."""
    session["value"] = value
    return "kept"


@blueprint.get("/session")
def recall() -> str:
    """Return the value of the session."""
    return session.get("value", "")


@socketio.on("echo")
def echo(words: str) -> str:
    """Return the message of a socket."""
    return words


@blueprint.get("/visit")
def visit() -> str:
    """Count a visit, and return the process id."""
    VISITS.inc()
    WORKERS.set(1)
    return str(os.getpid())


@blueprint.get("/metrics")
def metrics() -> bytes:
    """Return the metrics of all workers."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
