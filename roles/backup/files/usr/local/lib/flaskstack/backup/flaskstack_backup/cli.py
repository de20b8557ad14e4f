"""Actions of the program, and the metrics of its jobs.

init              create the repository, unless it exists
run               make a backup, and remove expired ones
ship              copy new binary logs to the store
check             verify the repository and the age of the newest backup
drill             restore the newest backup into a private server, and check it
list              print the backups as JSON
claim             continue the backups of a previous server without restoring them
restore …         print what a restore would do, or do it with --apply
report JOB        write the metrics, and log the reason of a failure
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from flaskstack_backup.processes import BackupError, lock
from flaskstack_backup.restore import Restore, moment_of

JOBS = ("run", "ship", "check", "drill")
METRICS = {
    "last_success_timestamp_seconds": "Last success of the job.",
    "failed": "1 if the last run of the job failed.",
    "duration_seconds": "Duration of the last success of the job.",
    "size_bytes": "Size of the data that the last success of the job read.",
    "max_age_seconds": "Age of the last success from which the job is overdue.",
}
MARGIN = 600  # seconds that a copy of the binary logs may be late


def report(backup: Restore, job: str) -> None:
    """Log the reason when systemd reports a failure, and write the metrics of all jobs."""
    result = os.environ.get("SERVICE_RESULT", "success")
    backup.record(job, failed=int(result != "success"))
    if result != "success":
        reason = backup.read(job).get("reason") or f"systemd reports: {result}"
        print(f"<3>Backup job {job} of {backup.settings.app} failed. {reason}")
    settings, lines = backup.settings, []
    ages = dict.fromkeys(("run", "check"), settings.max_age * 3600)
    ages["ship"] = settings.binlog_interval + MARGIN
    states = {one: backup.read(one) for one in JOBS}
    for one, state in states.items():
        if state and one in ages:
            state["max_age_seconds"] = ages[one]
    for name, description in METRICS.items():
        full = f"flaskstack_backup_{name}"
        lines += [f"# HELP {full} {description}", f"# TYPE {full} gauge"]
        for one, state in states.items():
            if name in state:
                labels = f'app="{settings.app}",job="{one}"'
                lines.append(f"{full}{{{labels}}} {state[name]}")
    path = Path(settings.metrics)
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.chmod(0o644)
    new.replace(path)


def do(backup: Restore, options: argparse.Namespace) -> Any:
    """Run an action and return what to print."""
    if options.action == "restore":
        moment, parts = moment_of(options.to), [*filter(None, options.parts.split(","))]
        with lock(backup.state / "lock"):
            return backup.restore(moment, options.target, parts, options.apply)
    if options.action == "init":
        return {"changed": backup.store.initialize(backup.settings.is_own)}
    if options.action in ("list", "claim"):
        return getattr(backup, options.action)()
    if options.action in ("run", "ship") and not backup.settings.is_own:
        raise BackupError(
            f"This host restores the backups of {backup.settings.host}; it makes none"
        )
    start = time.time()
    if options.action == "ship":
        done = backup.ship()
    else:
        with lock(backup.state / "lock"):
            done = getattr(backup, options.action)()
    now = time.time()
    times = {"last_success_timestamp_seconds": int(now), "duration_seconds": round(now - start, 1)}
    size = done.get("size", 0)
    backup.record(options.action, reason="", size_bytes=size, result=done, **times)
    return done


def main() -> int:
    """Run an action; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("action", choices=[*JOBS, "init", "list", "claim", "restore", "report"])
    parser.add_argument("job", nargs="?", choices=JOBS, help="for report")
    parser.add_argument("--to", default="", help="moment, such as '2026-11-20 14:03:00'")
    parser.add_argument("--as", dest="target", default="", help="restore into another database")
    parser.add_argument("--parts", default="", help="of database,files,queue")
    parser.add_argument("--apply", action="store_true")
    options = parser.parse_args()
    os.umask(0o077)
    backup = Restore(json.loads(options.settings.read_text()))
    if options.action == "report":
        report(backup, options.job)
        return 0
    try:
        print(json.dumps(do(backup, options)))
    except BackupError as error:
        backup.record(options.action, reason=str(error))
        print(error, file=sys.stderr)
        return 1
    return 0
