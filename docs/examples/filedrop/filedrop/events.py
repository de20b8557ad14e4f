"""Send events to all open pages, as server-sent events."""

import queue
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Protocol

import redis
from flask import Blueprint, Response, current_app

CHANNEL = "filedrop"
KEEPALIVE = 15  # seconds; a keepalive detects closed pages

blueprint = Blueprint("events", __name__)


class Bus(Protocol):
    """Distributes messages to all open pages."""

    def publish(self, message: str) -> None:
        """Send a message to all listeners."""

    def listen(self) -> Iterator[str]:
        """Yield messages, and an empty one as a keepalive."""


class LocalBus:
    """Reaches the pages of one process, for development."""

    def __init__(self) -> None:
        """Start without listeners."""
        self.listeners: set[queue.Queue[str]] = set()

    def publish(self, message: str) -> None:
        """Send a message to all listeners."""
        for listener in list(self.listeners):
            listener.put(message)

    def listen(self) -> Iterator[str]:
        """Yield messages, and an empty one as a keepalive."""
        messages: queue.Queue[str] = queue.Queue()
        self.listeners.add(messages)
        try:
            while True:
                try:
                    yield messages.get(timeout=KEEPALIVE)
                except queue.Empty:
                    yield ""
        finally:
            self.listeners.discard(messages)


class RedisBus:
    """Reaches the pages of all processes, including those of other releases."""

    def __init__(self, url: str) -> None:
        """Create the client, which connects when it is first used."""
        self.redis = redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=2, socket_timeout=5
        )

    def publish(self, message: str) -> None:
        """Send a message to all listeners; during an outage of Redis it is lost."""
        with suppress(redis.RedisError):
            self.redis.publish(CHANNEL, message)

    def listen(self) -> Iterator[str]:
        """Yield messages, and an empty one as a keepalive."""
        with closing(self.redis.pubsub(ignore_subscribe_messages=True)) as pubsub:
            pubsub.subscribe(CHANNEL)
            while True:
                message = pubsub.get_message(timeout=KEEPALIVE)
                yield message["data"] if message else ""


def bus(url: str) -> Bus:
    """Return a bus on Redis if there is a URL, otherwise a local one."""
    return RedisBus(url) if url else LocalBus()


@blueprint.get("/events")
def stream() -> Response:
    """Stream events to a page."""

    def lines(messages: Iterator[str]) -> Iterator[str]:
        yield "retry: 1000\n\n"
        for message in messages:
            yield f"data: {message}\n\n" if message else ":\n\n"

    response = Response(lines(current_app.extensions["bus"].listen()), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/healthz")
def health() -> str:
    """Return 200 while the app is alive."""
    return "ok"
