"""Background processes of an app: their units, schedules and files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

Process = dict[str, Any]

USUAL: Process = {
    "instances": 1,
    "singleton": False,
    "stop_signal": "SIGTERM",
    "stop_timeout": 60,
    "memory_limit": 0,
    "watchdog": 0,
    "environment": {},
    "schedule": "",
    "catch_up": True,
    "random_delay": 0,
}


def active_processes(processes: Iterable[Mapping[str, Any]]) -> list[Process]:
    """Return the enabled processes with defaults for omitted options.

    All app hosts have the units of a singleton. Only `app_singleton_host` runs it.
    """
    return [
        process
        | {
            "command": str(process["command"]).strip(),
            "singleton": boolean(process["singleton"], strict=False),
        }
        for process in (USUAL | dict(each) for each in processes)
        if int(process["instances"]) > 0
    ]


def process_services(processes: Iterable[Process], app_name: str) -> list[str]:
    """Return the units of long-running processes, one per instance."""
    return [
        f"{app_name}-{process['name']}@{number}.service"
        for process in processes
        if not process["schedule"]
        for number in range(1, int(process["instances"]) + 1)
    ]


def process_timers(processes: Iterable[Process], app_name: str) -> list[str]:
    """Return the timers of scheduled processes."""
    return [f"{app_name}-{process['name']}.timer" for process in processes if process["schedule"]]


def singleton_units(processes: Iterable[Process], app_name: str) -> list[str]:
    """Return the units of the processes that run on one host only."""
    own = [process for process in processes if process["singleton"]]
    return process_services(own, app_name) + process_timers(own, app_name)


def settings_templates(
    processes: Iterable[Process], app_name: str, files: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the templates of a set of settings as `{path, src, vars}`.

    `path` is relative to the set's folder. `files` comes from `app_file_templates`.
    """
    fixed = {
        "environment": "environment.j2",
        "background": "background.j2",
        "gunicorn.conf.py": "gunicorn.conf.py.j2",
        "commands.conf": "units/commands.conf.j2",
        f"units/{app_name}.slice": "units/app.slice.j2",
        f"units/{app_name}.target": "units/app.target.j2",
        f"units/{app_name}-web@.service": "units/web@.service.j2",
        f"units/{app_name}-web@.socket": "units/web@.socket.j2",
    }
    units = [
        {
            "path": f"units/{app_name}-{process['name']}{kind}",
            "src": f"units/process{kind}.j2",
            "vars": {"process": process},
        }
        for process in processes
        for kind in ((".service", ".timer") if process["schedule"] else ("@.service",))
    ]
    return [*({"path": path, "src": src} for path, src in fixed.items()), *units, *files]


def app_file_templates(
    files: Iterable[Mapping[str, Any]], app_name: str, inventory: str
) -> list[dict[str, str]]:
    """Return the files of `app_files` as `{path, src, dest}`.

    `path` is relative to the folder of a set of settings. The release gets a link for a relative
    `dest`. An absolute `dest` is below /etc/<app>.
    """
    found = []
    for file in files:
        dest = posixpath.normpath(file["dest"])
        beside = posixpath.relpath(dest, f"/etc/{app_name}") if dest.startswith("/") else ""
        found.append(
            {
                "path": f"beside/{beside}" if beside else f"files/{dest}",
                "src": posixpath.join(inventory, file["template"]),
                "dest": dest if beside else f"/etc/{app_name}/files/{dest}",
            }
        )
    return found


def unit_patterns(process_files: Iterable[Mapping[str, Any]], app_name: str) -> list[str]:
    """Return the patterns of an app's unit files and their drop-in directories.

    `process_files` are the services of its background processes, as found on a host.
    """
    kinds = (".target", ".slice", ".network.service", ".recover.service", ".run-.service")
    names = [f"{app_name}{kind}" for kind in (*kinds, "-web@*.service", "-web@*.socket")]
    services = _names(process_files)
    names += services + [_timer(name) for name in services]
    return names + [f"{name}.d" for name in names]


def found_units(files: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the units of these files; for a template unit, the pattern of its instances."""
    names = {name.replace("@.", "@*.") for name in _names(files)}
    return sorted(name for name in names if not name.endswith(".d"))


def timer_stamps(process_files: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the paths of the files in which systemd records the last run of timers."""
    return [f"/var/lib/systemd/timers/stamp-{_timer(name)}" for name in _names(process_files)]


def _names(files: Iterable[Mapping[str, Any]]) -> list[str]:
    return [posixpath.basename(file["path"]) for file in files]


def _timer(service: str) -> str:
    return service.removesuffix(".service") + ".timer"


# OnCalendar= of systemd: a keyword, or weekdays, date and time; then an optional time zone.
WORDS = "minutely|hourly|daily|weekly|monthly|quarterly|semiannually|annually|yearly"
DAY = "(?:mon|monday|tue|tuesday|wed|wednesday|thu|thursday|fri|friday|sat|saturday|sun|sunday)"
DAYS = rf"{DAY}(?:(?:\.\.|-){DAY})?(?:,{DAY}(?:(?:\.\.|-){DAY})?)*"
VALUE = r"\d+(?:\.\d+)?(?:\.\.\d+(?:\.\d+)?)?(?:/\d+(?:\.\d+)?)?"
PART = rf"(?:\*|{VALUE}(?:,{VALUE})*)"
DATE = rf"(?:{PART}-)?{PART}[-~]{PART}"
TIME = rf"{PART}:{PART}(?::{PART})?"
CALENDAR = re.compile(
    rf"(?:{WORDS}|{DAYS}|(?:{DAYS}\s+)?(?:{DATE}\s+{TIME}|{DATE}|{TIME}))"
    r"(?:\s+[a-z]+(?:/[a-z0-9_+-]+)*)?",
    re.IGNORECASE,
)


def invalid_schedules(processes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the schedules that systemd would reject, for example in cron syntax.

    This checks the syntax only. The host checks the values, for example a 25th hour.
    """
    schedules = [str(process.get("schedule") or "") for process in processes]
    return [text for text in schedules if text and not CALENDAR.fullmatch(text.strip())]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "active_processes": active_processes,
            "app_file_templates": app_file_templates,
            "found_units": found_units,
            "process_services": process_services,
            "process_timers": process_timers,
            "settings_templates": settings_templates,
            "singleton_units": singleton_units,
            "timer_stamps": timer_stamps,
            "unit_patterns": unit_patterns,
        }
