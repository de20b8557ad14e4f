"""The values that all workers share in the cache: a visit counter and statistics.

Callers catch `Unavailable`: without the cache the page lacks these two values.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from sample_app.config import Settings
from sample_app.resilient_redis import ResilientRedis

VISITS = "guestbook:visits"
STATS = "guestbook:stats"
STATS_LIFETIME = 30  # seconds

instance: ResilientRedis


def init(settings: Settings) -> None:
    """Configure the instance for this process, without a connection."""
    global instance
    instance = ResilientRedis("cache", settings.cache_url)


def count_visit() -> int:
    """Increment the shared counter and return it; raises Unavailable."""
    return int(instance.call(lambda client: client.incr(VISITS)))


def stats(count: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the cached statistics, or those of `count`, which are then cached; raises Unavailable.

    If two workers count at the same time, both return the value that was stored first.
    """
    stored = instance.call(lambda client: client.get(STATS))
    if stored is None:
        counted = count() | {"counted_by": process_name(), "counted_at": round(time.time(), 3)}
        new = json.dumps(counted)
        options = {"nx": True, "ex": STATS_LIFETIME, "get": True}
        stored = instance.call(lambda client: client.set(STATS, new, **options)) or new
    value: dict[str, Any] = json.loads(stored)
    return value | {"age": max(0.0, round(time.time() - value["counted_at"], 1))}


def process_name() -> str:
    """Return `host:pid` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
