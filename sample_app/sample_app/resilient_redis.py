"""A Redis client that does not block a page when the server is down or hangs.

Socket timeouts limit each call, and a broken connection is retried immediately. After a failure a
circuit breaker rejects further calls until one trial call is made `RESET_TIMEOUT` seconds later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import pybreaker
import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")

CALL_TIMEOUT = 0.3  # seconds for a connection, and for a response
RESET_TIMEOUT = 2.0  # seconds


class Unavailable(Exception):
    """A Redis instance cannot be used now; `reason` may be shown to a visitor."""

    def __init__(self, instance: str, reason: str) -> None:
        super().__init__(f"{instance}: {reason}")
        self.instance = instance
        self.reason = reason


def connect(url: str) -> redis.Redis:
    """Return a client that connects when it is first used.

    Only broken connections are retried: a retry after a timeout would double the wait.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=CALL_TIMEOUT,
        socket_connect_timeout=CALL_TIMEOUT,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), 2, (ConnectionError,)),
    )


class ResilientRedis:
    """One Redis instance behind a circuit breaker."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.client = connect(url)
        self.breaker = pybreaker.CircuitBreaker(
            fail_max=1,
            reset_timeout=RESET_TIMEOUT,
            exclude=[lambda error: not isinstance(error, ConnectionError | TimeoutError | OSError)],
            throw_new_error_on_trip=False,
        )

    def call(self, command: Callable[[redis.Redis], T]) -> T:
        """Return `command(client)`; raises Unavailable."""
        try:
            return self.breaker.call(command, self.client)
        except pybreaker.CircuitBreakerError:
            raise Unavailable(self.name, "not reachable, waiting before the next try") from None
        except (RedisError, OSError) as error:
            log.warning("%s failed: %s", self.name, error)
            raise Unavailable(self.name, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no response in time"
    if isinstance(error, ResponseError):  # for example OOM: all of its memory is in use
        return f"refused with {str(error).split(' ', 1)[0]}"
    return "not reachable"
