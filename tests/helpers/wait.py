"""Wait until a condition is true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = 20, every: float = 0.2) -> T:
    """Call `condition` until its result is true, and return that.

    An exception counts as "not yet". After `seconds` an AssertionError shows the last result.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer, last = condition(), None
        except Exception as error:
            answer, last = None, error
        if answer:
            return answer
        if time.monotonic() >= deadline:
            name = getattr(condition, "__name__", repr(condition))
            raise AssertionError(
                f"{name}: not true within {seconds} s, last: {last or answer!r}"
            ) from last
        time.sleep(every)
