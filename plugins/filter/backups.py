"""Store, timers, checks and reports of role backup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2] / "roles/release/files")]

from flaskstack.history import table
from problems import Check, check, generated, none_of
from quotes import not_lines

Settings = Mapping[str, Any]

PARTS = {"database": "database", "queue": "queue", "app": "files"}  # by group
SSH = re.compile(r"(sftp|ssh)://[a-z_][a-z0-9_.-]*@[A-Za-z0-9.:\[\]-]+(/.*)?")
STORE = re.compile(r"/\S+|(s3|rest|b2|azure|gs|swift):\S+")
SIZE = re.compile(r"\d+(\.\d+)?%|\d+[KMGT]?")
BACKUP_SECRET = "app_backup_password"  # in secrets/backup.txt
NUMBERS = {  # minimum and example
    "backup_binlog_interval": (10, 60),
    "backup_keep_daily": (1, 7),
    "backup_keep_weekly": (0, 4),
    "backup_keep_monthly": (0, 6),
    "backup_max_age": (1, 26),
    "backup_upload_limit": (0, 0),
    "backup_restore_memory": (32, 64),
}


def backup_parts(groups: Iterable[str]) -> list[str]:
    """Return the parts to back up on a host in these groups."""
    return [part for group, part in PARTS.items() if group in {*groups}]


def backup_url(repository: str) -> str:
    """Return restic's URL of a store. A server with a forced command ignores the path."""
    return "rclone:store" if repository.startswith("ssh://") else repository


def backup_options(repository: str, folder: str) -> list[str]:
    """Return restic's options for a store behind SSH; its key and known hosts are in `folder`."""
    if not SSH.fullmatch(repository):
        return []
    url = urlsplit(repository)
    host = f"{url.username}@{url.hostname}"
    command = f"ssh -i {folder}/ssh_key -o UserKnownHostsFile={folder}/known_hosts"
    command += " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o BatchMode=yes"
    command += f" -o ServerAliveInterval=30 -p {url.port or 22} {host}"
    if url.scheme == "sftp":
        return [f"--option=sftp.command={command} -s sftp"]
    return [f"--option=rclone.program={command}", "--option=rclone.args=rclone"]


def backup_timers(settings: Settings, is_own: bool = True) -> list[dict[str, Any]]:
    """Return the jobs of a host with the schedule or the interval in seconds of their timers.

    A host that restores the backups of another one (not `is_own`) has no timers.
    """
    has_database = "database" in settings["backup_parts"]
    # An upload takes time too, so half of the limit remains for it.
    interval = int(settings["backup_binlog_interval"]) // 2
    jobs = [
        {"name": "run", "schedule": settings["backup_schedule"]},
        {"name": "check", "schedule": settings["backup_check_schedule"]},
        {"name": "drill", "schedule": settings["backup_drill_schedule"]},
        {"name": "ship", "interval": interval if has_database else 0},
    ]
    idle = {"schedule": "", "interval": 0}
    timers = [idle | job if is_own else job | idle for job in jobs]
    return [timer | {"enabled": bool(timer["schedule"] or timer["interval"])} for timer in timers]


def backup_timer_files(timers: Iterable[Mapping[str, Any]], unit: str) -> list[dict[str, Any]]:
    """Return the templates of timers, as items of a loop."""
    source = "etc/systemd/system/backup.timer.j2"
    return [{"src": source, "dest": f"{unit}@{timer['name']}.timer", **timer} for timer in timers]


def backup_checks(settings: Settings, host: str, hosts: list[str]) -> Iterator[Check]:
    """Return the checks of role backup on one of the `hosts`, by its name in the store."""
    repository = settings["backup_repository"]
    if not repository:
        return

    def checked(name: str, ok: Any, reason: str, example: Any) -> Check:
        return check(name, ok, reason, value=settings[name], example=example)

    is_ssh = SSH.fullmatch(repository)
    reason = "must be an absolute path, sftp://user@host/path, s3:https://host/bucket/folder or"
    reason += " ssh://user@host"
    example = f"sftp://backup@store.example.org//srv/backups/{host}"
    yield checked("backup_repository", is_ssh or STORE.fullmatch(repository), reason, example)
    # A lock for pruning, and the retention, concern the whole repository.
    alone = len(hosts) < 2 or host in repository or repository.startswith(("/", "ssh:"))
    reason = "must contain backup_host, since each host needs a repository of its own"
    yield checked("backup_repository", alone, reason, example)
    known = not is_ssh or settings["backup_ssh_known_hosts"]
    reason = "must list the host keys of the store (ssh-keyscan -p PORT HOST, compared with those"
    reason += " in its /etc/ssh/*.pub)"
    yield check(
        "backup_ssh_known_hosts", known, reason, example=["store.example.org ssh-ed25519 …"]
    )
    long = len(settings.get("backup_password") or "") >= 16
    remedy = f"Set it in group_vars/all/secrets.yml: backup_password: {generated(BACKUP_SECRET)}"
    yield check("backup_password", long, "must have 16 characters or more", remedy=remedy)
    invalid = not_lines(settings["backup_secret_environment"])
    reason = "must have values of one line"
    yield check("backup_secret_environment", not invalid, reason)
    size = SIZE.fullmatch(settings["backup_check_data"])
    reason = "must be a percentage or a size such as 100M"
    yield checked("backup_check_data", size, reason, "2%")
    for name in ("backup_schedule", "backup_check_schedule"):
        reason = "must be a time of systemd (systemd-analyze calendar '…')"
        yield checked(name, settings[name].strip(), reason, "*-*-* 02:30:00")
    for name, (least, example) in NUMBERS.items():
        valid = int(settings[name]) >= least
        yield checked(name, valid, f"must be {least} or more", example)
    invalid = [path for path in settings["backup_paths"] if not path.startswith("/")]
    yield none_of("backup_paths", invalid, "must have absolute paths", example=["/srv/data"])


def backup_table(listed: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the backups of each host, newest first.

    `listed` has the results of the program's action `list`; those of hosts without backups are
    skipped.
    """
    rows = [["host", "backup", "age", "size", "took", "parts", "restores any second from", "to"]]
    for host, result in listed.items():
        backups = json.loads(result.get("stdout") or "[]")
        found = sorted(backups, key=lambda one: one["from"], reverse=True)
        rows += [[host, *row] for row in map(_row, found)] or [[host, "none", *[""] * 6]]
    return table(rows)


def _row(one: Mapping[str, Any]) -> list[str]:
    hours = one["age"] / 3600
    age = f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"
    parts = ", ".join(one["parts"])
    size = f"{one['size'] / 2**20:.1f} MiB"
    times = [_utc(one["from"]), _utc(one["to"])]
    return [one["run"], age, size, f"{one['seconds']:.0f} s", parts, *times]


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def job_report(result: Mapping[str, Any], job: str) -> str:
    """Return what a job did."""
    size = f"{result.get('size', 0) / 2**20:.1f} MiB"
    if job == "run":
        parts = [part for part in PARTS.values() if part in result]
        return f"Backup {result['run']}: {', '.join(parts)}, {size} in {result['seconds']:.0f} s"
    if job == "drill":
        text = f"Restored backup {result['run']}, {result['age'] / 3600:.1f} hours old, {size}"
        text += f", in {result['seconds']:.0f} s"
        if "end" in result:
            text += f", to {_last(result['end'])}; {result['checks']} checks of the app passed"
        return text
    return f"Job {job} succeeded"


def _last(end: Mapping[str, Any]) -> str:
    name = end["transaction"] or "the end of the dump"
    return f"{name} of {_utc(end['time'])} ({end['log']}:{end['position']})"


def restore_plan(plan: Mapping[str, Any], host: str) -> str:
    """Return what a restore would do on a host, and how to confirm it."""
    if not plan["parts"]:
        return f"Backup {plan['run']} of {host} has none of these parts"
    parts = ", ".join(plan["parts"])
    text = f"{host}: restores {parts} from backup {plan['run']} of {_utc(plan['from'])}"
    if "database" in plan:
        text += f" and the binary logs after it, as database {plan['database']}"
    if not plan["overwrites"]:
        return f"{text}. It overwrites nothing"
    overwritten = ", ".join(plan["overwrites"])
    return f"{text}. It overwrites {overwritten}. To confirm, add -e confirm=yes"


def restore_report(report: Mapping[str, Any]) -> str:
    """Return what a restore did: to which transaction, of when, in what time."""
    end = report.get("end")
    parts = f"Restored {', '.join(report['parts'])} from backup {report['run']}"
    if not end:
        return f"{parts} in {report['seconds']:.0f} s"
    seconds = f"{report['seconds']:.0f} s"
    return f"{parts} as database {report['database']} in {seconds}, to {_last(end)}"


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "backup_checks": backup_checks,
            "backup_options": backup_options,
            "backup_parts": backup_parts,
            "backup_table": backup_table,
            "backup_timer_files": backup_timer_files,
            "backup_timers": backup_timers,
            "backup_url": backup_url,
            "job_report": job_report,
            "restore_plan": restore_plan,
            "restore_report": restore_report,
        }
