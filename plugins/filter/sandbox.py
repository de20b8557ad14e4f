"""Write sandbox options and exceptions to them as lines of a unit."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "roles/release/files"))
sys.path.append(str(Path(__file__).parent))

from flaskstack.hardening import EMPTY, INACCESSIBLE, PACKAGE_DATA, SHARED_MEMORY, UNITS
from paths import outermost

_OPTION = re.compile(r"[A-Z][A-Za-z0-9]+\Z")


def sandbox_options(options: Mapping[str, Any]) -> str:
    """Return the lines of options by name. A list becomes one line per item."""
    return "\n".join(line for name, value in options.items() for line in _lines(name, value))


def app_sandbox(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for all units of an app, from its variables by name.

    `writable` are folders outside the app's own. With gevent, each of a worker's connections is an
    open file, and most need a second one.
    """
    app_name, app_root = settings["app_name"], settings["app_root"]
    internal = [entry["folder"] for entry in settings["app_internal"]]
    readable = settings["app_readable_paths"] + [path for path in internal if path[0] == "/"]
    writable = settings["writable"]
    gevent = settings["gunicorn_worker_class"] == "gevent"
    shared, state = f"{app_root}/shared", f"/var/lib/{app_name}"
    tmp = f"/var/cache/{app_name}-tmp"  # on disk, shared by all processes of the app
    folders = [f"-{path}" for path in writable]
    # The app could replace a path below a writable directory with a link.
    visible = outermost([app_root, *PACKAGE_DATA, *readable], [state, *writable])
    options = UNITS | {
        "TemporaryFileSystem": [*(f"{path}:ro" for path in EMPTY), SHARED_MEMORY],
        "BindReadOnlyPaths": [f"-{path}" for path in visible],
        "BindPaths": [state, f"{tmp}:/tmp", f"{tmp}:/var/tmp", *folders],
        "ReadWritePaths": [shared, *folders],
        "InaccessiblePaths": [f"-{path}" for path in INACCESSIBLE],
        "NoExecPaths": [shared, state, tmp, "/tmp", "/var/tmp", *folders],
    }
    files = 2 * int(settings["gunicorn_worker_connections"]) + 1024
    return options | ({"LimitNOFILE": files} if gevent else {})


def memory_limits(limit: int | str, swap: int = 4) -> str:
    """Return the lines for a unit with `limit` MiB of memory and 1/`swap` of that as swap.

    MemoryHigh= is close to MemoryMax=, because the kernel slows processes down between the two.
    """
    most = int(limit)
    sizes = {"MemoryHigh": most * 97 // 100, "MemoryMax": most, "MemorySwapMax": most // swap}
    return "\n".join(f"{name}={size}M" for name, size in sizes.items() if most)


def redis_memory(data: int | str) -> int:
    """Return the memory limit in MiB for `data` MiB, copied pages of a fork and client buffers."""
    return 64 + 3 * int(data)


def sandbox_exceptions(exceptions: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the lines of `{option: {value, reason}}`, each below its reason as a comment.

    Write them after the options that they override. systemd uses the last line of an option, or
    appends the line if the option is a list.
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
    """Return the names of exceptions with an invalid option name or without value or reason."""
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
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "app_sandbox": app_sandbox,
            "memory_limits": memory_limits,
            "redis_memory": redis_memory,
            "sandbox_options": sandbox_options,
            "sandbox_exceptions": sandbox_exceptions,
        }
