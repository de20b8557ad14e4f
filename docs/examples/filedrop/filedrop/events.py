"""Tell every open page what happens, as server-sent events."""

import queue
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Protocol

import redis
from flask import Blueprint, Response, current_app

CHANNEL = "filedrop"
SILENCE = 15  # seconds until a sign of life, by which a page that is gone is noticed

blueprint = Blueprint("events", __name__)


class Bus(Protocol):
    """What all pages hear."""

    def tell(self, message: str) -> None:
        """Send a message to all who listen now."""

    def listen(self) -> Iterator[str]:
        """Yield messages as they come, and an empty one after a silence."""


class LocalBus:
    """Reaches the pages of one process: enough to try the app."""

    def __init__(self) -> None:
        """Begin without a listener."""
        self.listeners: set[queue.Queue[str]] = set()

    def tell(self, message: str) -> None:
        """Send a message to all who listen now."""
        for listener in list(self.listeners):
            listener.put(message)

    def listen(self) -> Iterator[str]:
        """Yield messages as they come, and an empty one after a silence."""
        mine: queue.Queue[str] = queue.Queue()
        self.listeners.add(mine)
        try:
            while True:
                try:
                    yield mine.get(timeout=SILENCE)
                except queue.Empty:
                    yield ""
        finally:
            self.listeners.discard(mine)


class RedisBus:
    """Reaches the pages of all processes, also those of the release before and the next."""

    def __init__(self, url: str) -> None:
        """Use the Redis at this URL; nothing is connected yet."""
        self.redis = redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=2, socket_timeout=5
        )

    def tell(self, message: str) -> None:
        """Send a message to all who listen now; without Redis they see it when they look again."""
        with suppress(redis.RedisError):
            self.redis.publish(CHANNEL, message)

    def listen(self) -> Iterator[str]:
        """Yield messages as they come, and an empty one after a silence."""
        with closing(self.redis.pubsub(ignore_subscribe_messages=True)) as heard:
            heard.subscribe(CHANNEL)
            while True:
                message = heard.get_message(timeout=SILENCE)
                yield message["data"] if message else ""


def bus(url: str) -> Bus:
    """Return the bus that this site has: Redis where there is one."""
    return RedisBus(url) if url else LocalBus()


@blueprint.get("/events")
def stream() -> Response:
    """Stay open, and say what happens."""

    def lines(messages: Iterator[str]) -> Iterator[str]:
        yield "retry: 1000\n\n"
        for message in messages:
            yield f"data: {message}\n\n" if message else ":\n\n"

    answer = Response(lines(current_app.extensions["bus"].listen()), mimetype="text/event-stream")
    answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.get("/healthz")
def health() -> str:
    """Answer while the app is alive."""
    return "ok"
