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


def process_templates(processes: Iterable[Process], app_name: str) -> list[dict[str, Any]]:
    """Return the unit files of the processes, as `{path, src, vars}` in a set of settings."""
    return [
        {
            "path": f"units/{app_name}-{process['name']}{kind}",
            "src": f"units/process{kind}.j2",
            "vars": {"process": process},
        }
        for process in processes
        for kind in ((".service", ".timer") if process["schedule"] else ("@.service",))
    ]


def app_file_templates(
    files: Iterable[Mapping[str, Any]], app_name: str, inventory: str
) -> list[dict[str, str]]:
    """Return the files of `app_files`, as `{path, src, dest}`: `path` is in a set of settings.

    The release gets a link for a relative `dest`. An absolute `dest` is below /etc/<app>.
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
            "process_services": process_services,
            "process_timers": process_timers,
            "app_file_templates": app_file_templates,
            "process_templates": process_templates,
        }
