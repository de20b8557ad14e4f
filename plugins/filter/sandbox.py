"""Write the options of a sandbox, and exceptions from them, as lines of a unit."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "roles/release/files"))
sys.path.append(str(Path(__file__).parent))

from flaskstack.hardening import EMPTY, INACCESSIBLE, PACKAGE_DATA, SHARED_MEMORY, UNITS
from paths import outermost

_OPTION = re.compile(r"[A-Z][A-Za-z0-9]+\Z")


def sandbox_options(options: Mapping[str, Any]) -> str:
    """Return the lines of options by name; a list is a line for each of its items."""
    return "\n".join(line for name, value in options.items() for line in _lines(name, value))


def app_sandbox(
    app_name: str,
    app_root: str,
    readable: Iterable[str],
    writable: Iterable[str],
    connections: int | str = 0,
) -> dict[str, Any]:
    """Return the options for all units of an app.

    `readable` and `writable` are paths outside of the app's own. A gevent worker has `connections`,
    each of which is a file, and most of which hold another one.
    """
    shared, state = f"{app_root}/shared", f"/var/lib/{app_name}"
    tmp = f"/var/cache/{app_name}-tmp"  # on the disk, and the same for all processes of the app
    folders = [f"-{path}" for path in writable]
    # The app could replace a path below a writable one by a link.
    visible = outermost([app_root, *PACKAGE_DATA, *readable], [state, *writable])
    options = UNITS | {
        "TemporaryFileSystem": [*(f"{path}:ro" for path in EMPTY), SHARED_MEMORY],
        "BindReadOnlyPaths": [f"-{path}" for path in visible],
        "BindPaths": [state, f"{tmp}:/tmp", f"{tmp}:/var/tmp", *folders],
        "ReadWritePaths": [shared, *folders],
        "InaccessiblePaths": [f"-{path}" for path in INACCESSIBLE],
        "NoExecPaths": [shared, state, tmp, "/tmp", "/var/tmp", *folders],
    }
    return options | ({"LimitNOFILE": 2 * int(connections) + 1024} if int(connections) else {})


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
            "app_sandbox": app_sandbox,
            "memory_limits": memory_limits,
            "redis_memory": redis_memory,
            "sandbox_options": sandbox_options,
            "sandbox_exceptions": sandbox_exceptions,
        }
