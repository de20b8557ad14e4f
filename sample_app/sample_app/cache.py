"""What all workers share through the cache instance: a visit counter and one remembered value.

Losing the cache costs nothing but these: callers catch `Unavailable` and say so on the page.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import redis

from sample_app import redis_guard
from sample_app.config import Settings

VISITS = "guestbook:visits"
DIGEST = "guestbook:digest"
DIGEST_LIFETIME = 30  # seconds

guard: redis_guard.GuardedRedis


def configure(settings: Settings, client: redis.Redis | None = None) -> None:
    """Set the instance up for this process; nothing is connected yet."""
    global guard
    client = client or redis_guard.connect(settings.cache_url)
    guard = redis_guard.GuardedRedis("cache", client)


def count_visit() -> int:
    """Add one to the counter of all workers and return it; raises Unavailable."""
    return int(guard.call(lambda client: client.incr(VISITS)))


def visits() -> int:
    """Return the counter; raises Unavailable."""
    return int(guard.call(lambda client: client.get(VISITS)) or 0)


def digest(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the remembered value, or `make` it for all workers; raises Unavailable.

    The result has `made_by`, `made_at` (Unix seconds) and `age` (seconds) beside what `make` gave.
    When two workers make it at once, the first to write wins and both return that one.
    """
    stored = guard.call(lambda client: client.get(DIGEST))
    if stored is None:
        made = make() | {"made_by": whoami(), "made_at": round(time.time(), 3)}
        stored = guard.call(lambda client: _set_once(client, json.dumps(made)))
    value: dict[str, Any] = json.loads(stored)
    return value | {"age": max(0.0, round(time.time() - value["made_at"], 1))}


def _set_once(client: redis.Redis, mine: str) -> str | bytes:
    """Store the digest unless there is one by now; return what is stored."""
    with client.pipeline() as pipe:
        pipe.set(DIGEST, mine, nx=True, ex=DIGEST_LIFETIME)
        pipe.get(DIGEST)
        return pipe.execute()[1] or mine


def whoami() -> str:
    """Return `host:pid` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
