"""Write what a sandbox forbids, and what an app is allowed all the same, as lines of a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OPTION = re.compile(r"[A-Z][A-Za-z0-9]+\Z")


def sandbox_options(options: Mapping[str, Any]) -> str:
    """Return the lines of options by name; a list is a line for each of its items."""
    return "\n".join(line for name, value in options.items() for line in _lines(name, value))


def memory_limits(limit: int | str, swap: int = 4) -> str:
    """Return the lines for a unit that may hold `limit` MiB, and 1/`swap` of it more in swap.

    Shortly below the limit the kernel takes back what it can. It slows a process down there, all
    the more the further up, so there is not much in between.
    """
    most = int(limit)
    sizes = {"MemoryHigh": most * 97 // 100, "MemoryMax": most, "MemorySwapMax": most // swap}
    return "\n".join(f"{name}={size}M" for name, size in sizes.items() if most)


def redis_memory(data: int | str) -> int:
    """Return the MiB for an instance of so much data: copied in a fork, and clients' buffers."""
    return 64 + 3 * int(data)


def sandbox_exceptions(exceptions: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the lines of `{option: {value, reason}}`, each below its reason as a comment.

    They are meant to follow the rules that they are exceptions from: of systemd's options the last
    line counts, and where an option is a list, a line adds to it.
    """
    return "\n".join(
        line
        for name, exception in exceptions.items()
        for line in (
            f"# {' '.join(str(exception['reason']).split())}",
            *_lines(name, exception["value"]),
        )
    )


def unjustified(exceptions: Mapping[str, Any]) -> list[str]:
    """Return the names of exceptions that are no option, or lack a value or a reason."""
    return [
        name
        for name, exception in exceptions.items()
        if not _OPTION.match(str(name))
        or not isinstance(exception, Mapping)
        or "value" not in exception
        or len(str(exception.get("reason") or "").split()) < 2
        or not all(str(value).isprintable() for value in _values(exception["value"]))
    ]


def _lines(name: str, value: Any) -> list[str]:
    return [f"{name}={_text(item)}" for item in _values(value)]


def _values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "memory_limits": memory_limits,
            "redis_memory": redis_memory,
            "sandbox_options": sandbox_options,
            "sandbox_exceptions": sandbox_exceptions,
            "unjustified": unjustified,
        }
