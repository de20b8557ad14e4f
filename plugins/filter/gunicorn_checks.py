"""Checks of the settings of role gunicorn, and of the results that it gets from hosts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from app_checks import NIGHTLY, Settings, environment_variables, with_values
from plan_inputs import NUMBERS
from problems import Check, check, none_of
from sandbox import unjustified

WSGI = re.compile(r"[A-Za-z_]\w*([.][A-Za-z_]\w*)*:(?!(run|main)\b)[A-Za-z_]\w*([(].*[)])?")
PLACEHOLDER = re.compile(
    "change.?me|secret|password|placeholder|example|insecure|development|your.?key", re.IGNORECASE
)
# Gunicorn settings that role variables or systemd set.
MANAGED = {
    *("bind", "chdir", "daemon", "graceful_timeout", "group", "max_requests"),
    *("max_requests_jitter", "pidfile", "preload_app", "pythonpath", "raw_env", "reload"),
    *("reload_engine", "reload_extra_files", "spew", "threads", "timeout", "user"),
    *("worker_class", "worker_connections", "workers", "wsgi_app"),
}


def gunicorn_checks(settings: Settings) -> list[Check]:
    """Return the checks of role gunicorn, from the variables of roles app and gunicorn by name."""
    return with_values(settings, *_app_checks(settings), *_server_checks(settings))


def _app_checks(settings: Settings) -> Iterator[Check]:
    key = settings["app_secret_key"] or ""
    yield check(
        "app_wsgi",
        WSGI.fullmatch(settings["app_wsgi"] or ""),
        "must be what Gunicorn serves, as module:object or module:factory(), and never a "
        "development server",
        value=settings["app_wsgi"] or "",
        example="shop.web:create_app()",
    )
    yield check(
        "app_secret_key",
        len(key) >= 32 and not PLACEHOLDER.search(key) and len(set(key)) >= 10,
        "must be random, of 32 characters or more, since it signs sessions, and not the "
        "placeholder of an example",
    )
    yield check(
        "app_environment",
        not {name for name, _ in environment_variables(settings)}
        & {"SECRET_KEY", "SECRET_KEY_FALLBACKS", "GUNICORN_CMD_ARGS"},
        "must not set SECRET_KEY (use app_secret_key), SECRET_KEY_FALLBACKS (use "
        "app_secret_key_previous) or GUNICORN_CMD_ARGS (use gunicorn_settings)",
        example={},
    )


def _server_checks(settings: Settings) -> Iterator[Check]:
    names = settings["gunicorn_settings"]
    yield none_of(
        "gunicorn_settings",
        sorted(MANAGED & set(names)),
        "must not contain what systemd and variables of the app and the role (gunicorn_workers …) "
        "set; code is not reloaded in production",
        example={"proc_name": "shop"},
    )
    yield none_of(
        "gunicorn_settings",
        [name for name in names if not re.fullmatch("[a-z][a-z0-9_]*", str(name))],
        "must have Gunicorn's names, as they are written in its configuration file",
        example={"proc_name": "shop"},
    )
    yield check(
        "gunicorn_worker_class",
        settings["gunicorn_worker_class"] != "sync"
        or not settings["app_streaming_paths"] + settings["app_websocket_paths"],
        "must be gevent, or gthread for few of them, where there are app_streaming_paths or "
        "app_websocket_paths; each would occupy a sync worker, which Gunicorn kills after "
        "gunicorn_timeout",
        example="gevent",
    )
    yield none_of(
        "gunicorn_sandbox_exceptions",
        unjustified(settings["gunicorn_sandbox_exceptions"]),
        "must have, for each option of systemd, a value and a reason of more than one word",
        example={
            "MemoryDenyWriteExecute": {"value": False, "reason": "numba compiles machine code"}
        },
    )
    # In site.yml, the plan checks these. The checks here are for a role that is used alone.
    for name in ("workers", "threads", "worker_connections", "timeout"):
        least, most, example, unit = NUMBERS[f"gunicorn_{name}"]
        yield check(
            f"gunicorn_{name}",
            least <= settings[f"gunicorn_{name}"] <= most,
            f"must be a whole number of {unit} from {least} to {most}",
            example=example,
        )
    yield check(
        "gunicorn_watchdog",
        settings["gunicorn_watchdog"] == 0 or settings["gunicorn_watchdog"] >= 10,
        "must be 10 seconds or more, or 0 for none; the master process notifies once per second",
        example=60,
    )
    timeout, graceful = settings["gunicorn_timeout"], settings["gunicorn_graceful_timeout"]
    yield check(
        "gunicorn_graceful_timeout",
        timeout <= graceful,
        "must not be below gunicorn_timeout, or a restart cuts requests that may take longer",
        example=timeout,
    )
    yield check(
        "gunicorn_stop_timeout",
        settings["gunicorn_stop_timeout"] > graceful,
        "must be longer than gunicorn_graceful_timeout, or systemd kills requests that Gunicorn is "
        "finishing",
        example=graceful + 10,
    )


def schedule_checks(results: Iterable[Mapping[str, Any]]) -> list[Check]:
    """Return the check of the `systemd-analyze calendar` results, one for each process."""
    never = [
        result["item"]["schedule"]
        for result in results
        if not re.search("Next elapse: (?!never)", result["stdout"])
    ]
    reason = "must have schedules with a future run"
    return [none_of("app_processes", never, reason, example=[NIGHTLY])]


def singleton_checks(
    results: Iterable[Mapping[str, Any]],
    units: list[str],
    host: str,
    *,
    stopped_here: str = "",
    inventory_dir: str = "",
) -> Iterable[Check]:
    """Return the checks before singletons move to `host`.

    `results` come from the hosts outside this run. `stopped_here` is set if `host` is outside this
    run: it is the host in this run where the singletons would be stopped.
    """
    results = list(results)
    names = ", ".join(units)
    left = [result["item"] for result in results if result.get("moves")]
    left += [stopped_here] if stopped_here else []
    silent = [result["item"] for result in results if result.get("unreachable")]
    yield check(
        "app_singleton_host",
        not left,
        f"must be the host where {names} runs ({', '.join(left)}) unless the run has both hosts, "
        "since it is stopped there first. Nothing was moved",
        value=host,
        example=left[0] if left else host,
    )
    yield check(
        "app_singleton_host",
        not silent,
        f"cannot get {names} while {', '.join(silent)}, where it may run, does not answer",
        value=host,
        remedy=f"Nothing was moved. Remove that host from {inventory_dir}/hosts.yml if it is gone",
    )


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "gunicorn_checks": gunicorn_checks,
            "schedule_checks": schedule_checks,
            "singleton_checks": singleton_checks,
        }
