"""A Redis connection that cannot hold a page up.

Short socket timeouts bound one call; a broken connection is tried again once or twice at once; and
a circuit breaker remembers a failure, so that the next calls fail in microseconds until the trial
call that follows `RESET` seconds later. `call` raises one exception for all of that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pybreaker
import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")

CALL_TIMEOUT = 0.3  # seconds for one answer, and for a connection
RESET = 2.0  # seconds that an open breaker stays open
REFUSALS = {"OOM": "out of memory", "MISCONF": "cannot write to its disk"}
HEALTH_CHECK = 30  # seconds of idleness after which a connection is pinged before use


class Unavailable(Exception):
    """A Redis instance cannot do its work now; `reason` is fit for a visitor."""

    def __init__(self, instance: str, reason: str) -> None:
        super().__init__(f"{instance}: {reason}")
        self.instance = instance
        self.reason = reason


def connect(url: str, **options: Any) -> redis.Redis:
    """Return a client for `url` (connects when first used).

    Only broken connections are tried again: after a timeout the command may still be running, and
    waiting for it twice would cost the visitor twice.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), 2, (ConnectionError,))
    defaults = {
        "socket_timeout": CALL_TIMEOUT,
        "socket_connect_timeout": CALL_TIMEOUT,
        "health_check_interval": HEALTH_CHECK,
        "retry": retry,
    }
    return redis.Redis.from_url(url, **(defaults | options))


class GuardedRedis:
    """One Redis instance behind a breaker."""

    def __init__(self, instance: str, client: redis.Redis) -> None:
        self.instance = instance
        self.client = client
        self.breaker = pybreaker.CircuitBreaker(
            fail_max=1,
            reset_timeout=RESET,
            exclude=[_is_answer],
            listeners=[_LogChanges()],
            name=instance,
            throw_new_error_on_trip=False,
        )

    def call(self, command: Callable[[redis.Redis], T]) -> T:
        """Return `command(client)`; raises Unavailable."""
        try:
            return self.breaker.call(command, self.client)
        except pybreaker.CircuitBreakerError:
            raise Unavailable(self.instance, "not reachable, waiting before the next try") from None
        except (RedisError, OSError) as error:
            log.warning("%s failed: %s", self.instance, error, extra={"instance": self.instance})
            raise Unavailable(self.instance, _reason(error)) from error


def _is_answer(error: Exception) -> bool:
    """Say whether the server answered: its refusals are no reason to stop asking."""
    return not isinstance(error, (ConnectionError, TimeoutError, OSError))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ResponseError):
        for sign, reason in REFUSALS.items():
            if str(error).startswith(sign):
                return f"refused: {reason}"
        return "refused"
    return "not reachable"


class _LogChanges(pybreaker.CircuitBreakerListener):
    """Write one line when the breaker opens or closes."""

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        """Log the change."""
        old = old_state.name if old_state else None
        log.warning("%s breaker: %s → %s", cb.name, old, new_state.name)
