"""Reject calls for a while after one has timed out: a server that hangs must not take all threads.

There is one breaker per function. So if only writes wait, for a lock or on a full disk, reading
continues.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic

SLOW = 2.5  # seconds, shorter than any timeout
PAUSE = 2.0  # seconds without a call after a timeout, and then for a trial
TRIAL = 60.0  # seconds, longer than any timeout, without another call during a trial


class Open(Exception):
    """A call was rejected, since an earlier one has timed out."""


class Breaker:
    """The state of one function."""

    def __init__(self) -> None:
        self._until = -inf  # no call before this time
        self._lock = threading.Lock()

    @contextmanager
    def call(self, has_waited: Callable[[Exception], bool]) -> Iterator[None]:
        """Raise Open, or make a call; a slow one with an error of a wait has timed out.

        A call soon after the pause is a trial: others are rejected until it has ended.
        """
        with self._lock:
            if monotonic() < self._until:
                raise Open
            if monotonic() < self._until + PAUSE:
                self._until = monotonic() + TRIAL
        started, until = monotonic(), -inf
        try:
            yield
        except Exception as error:
            if monotonic() - started > SLOW and has_waited(error):
                until = monotonic() + PAUSE
            raise
        finally:
            self._until = until
