"""Say which background processes there are, what their units are called, and when they run."""

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
    """Return the processes that run, each with everything that it leaves out.

    All hosts have the units of a singleton; that of `app_singleton_host` runs it.
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
    """Return the units of processes that run all the time, one an instance."""
    return [
        f"{app_name}-{process['name']}@{number}.service"
        for process in processes
        if not process["schedule"]
        for number in range(1, int(process["instances"]) + 1)
    ]


def process_timers(processes: Iterable[Process], app_name: str) -> list[str]:
    """Return the timers of processes that run at times."""
    return [f"{app_name}-{process['name']}.timer" for process in processes if process["schedule"]]


def process_templates(processes: Iterable[Process], app_name: str) -> list[dict[str, Any]]:
    """Return the unit files of the processes, as `{path, src, vars}` of a set of settings."""
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
    """Return the app's own files, as `{path, src, dest}`: in a set of settings, and for the app.

    A relative `dest` is inside of the release, which has a link to it; others are below /etc/<app>.
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


# Systemd's OnCalendar: a word, or days, a date and a time, some of them; then maybe a time zone.
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
    """Return the schedules that systemd would not take, such as cron's.

    It is about their form; whether there is a 25th hour is asked on the host.
    """
    schedules = [str(process.get("schedule") or "") for process in processes]
    return [text for text in schedules if text and not CALENDAR.fullmatch(text.strip())]


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "active_processes": active_processes,
            "process_services": process_services,
            "process_timers": process_timers,
            "app_file_templates": app_file_templates,
            "process_templates": process_templates,
        }
