"""Let exactly the declared background processes of an app run, each as its unit file says now."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: app_processes
short_description: Let exactly the declared background processes of an app run
description:
  - Stops what is declared no more, which may finish its work, and removes its unit files.
  - Starts what should run and restarts what is older than its unit file. The others are left alone.
author: Flaskstack
"""
OPTIONS = {
    "app_name": {"type": "str", "required": True},
    "services": {"type": "list", "elements": "str", "required": True},
    "timers": {"type": "list", "elements": "str", "required": True},
    # The release in use; without one nothing is started.
    "current": {"type": "path", "required": True},
}
UNITS = Path("/etc/systemd/system")
# When each timer ran last; one that is declared again would make up for all the time between.
STAMPS = Path("/var/lib/systemd/timers")
SHOWN = "Id,ActiveState,Slice,NeedDaemonReload,ActiveEnterTimestampMonotonic"
RUNS = ("active", "activating", "reloading")
Shown = dict[str, dict[str, str]]


def units_in(output: str) -> Shown:
    """Return the properties of each unit that `systemctl show` prints."""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in output.split("\n\n")
    ]
    return {block["Id"]: block for block in blocks if "Id" in block}


def started_by(timer: str) -> str:
    """Return the service that a timer starts."""
    return timer.removesuffix(".timer") + ".service"


def file_of(unit: str) -> str:
    """Return the name of a unit's file; that of an instance is its template's."""
    return re.sub(r"@[^@]*\.service$", "@.service", unit)


def own_files(folder: Path, app_name: str) -> set[str]:
    """Return the names of the unit files of an app's processes, known by their slice."""
    slices = re.compile(rf"^Slice={re.escape(app_name)}-(processes|timers)\.slice$", re.MULTILINE)
    services = {
        path.name
        for path in folder.glob(f"{app_name}-*.service")
        if slices.search(path.read_text(encoding="utf-8"))
    }
    timers = {name.removesuffix(".service") + ".timer" for name in services}
    return services | {name for name in timers if (folder / name).exists()}


def not_declared(shown: Shown, app_name: str, declared: set[str]) -> list[str]:
    """Return the units to stop, timers first, so that they start nothing anew."""
    slices = {f"{app_name}-processes.slice", f"{app_name}-timers.slice"}
    services = {unit for unit, properties in shown.items() if properties.get("Slice") in slices}
    timers = {unit for unit in shown if unit.endswith(".timer") and started_by(unit) in services}
    gone = (services | timers) - declared
    active = [unit for unit in gone if shown[unit]["ActiveState"] != "inactive"]
    return sorted(active, key=lambda unit: (not unit.endswith(".timer"), unit))


def outdated(shown: Shown, units: Iterable[str], folder: Path, since_boot: float) -> list[str]:
    """Return the units that run, but began before their file was written.

    `since_boot` is the time of day at which the clock of systemd's time stamps began.
    """
    found = []
    for unit in units:
        properties = shown.get(unit, {})
        file = folder / file_of(unit)
        if properties.get("ActiveState") not in RUNS or not file.exists():
            continue
        began = since_boot + int(properties["ActiveEnterTimestampMonotonic"]) / 1_000_000
        if properties["NeedDaemonReload"] == "yes" or began < file.stat().st_mtime:
            found.append(unit)
    return found


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    app_name, timers = module.params["app_name"], module.params["timers"]
    wanted = [*module.params["services"], *timers]
    declared = {*wanted, *map(started_by, timers)}

    def systemctl(*arguments: str) -> str:
        _, output, _ = module.run_command(["systemctl", *arguments], check_rc=True)
        return output

    patterns = [f"{app_name}-*.service", f"{app_name}-*.timer", f"{app_name}.target"]
    shown = units_in(systemctl("show", "--all", f"--property={SHOWN}", *patterns))
    stopped = not_declared(shown, app_name, declared)
    removed = sorted(own_files(UNITS, app_name) - set(map(file_of, declared)))
    stale = [unit for unit, found in shown.items() if found.get("NeedDaemonReload") == "yes"]
    since_boot = time.time() - time.monotonic()
    runnable = Path(module.params["current"]).exists()
    restarted = outdated(shown, wanted, UNITS, since_boot) if runnable else []
    idle = [unit for unit in wanted if shown.get(unit, {}).get("ActiveState") not in RUNS]
    started = idle if runnable else []
    if not module.check_mode:
        # One call each, so that what has to finish its work does so side by side.
        for units in ([u for u in stopped if u.endswith(".timer")], stopped):
            if units:
                systemctl("stop", *units)
        for name in removed:
            (UNITS / name).unlink()
            (STAMPS / f"stamp-{name}").unlink(missing_ok=True)
        if stale or removed or started:
            systemctl("daemon-reload")
        if stopped or started:
            # Those that are forgotten anyway are no mistake.
            module.run_command(["systemctl", "reset-failed", *stopped, *started])
        if restarted or started:
            systemctl("restart", *restarted, *started)
    module.exit_json(
        changed=bool(stopped or removed or restarted or started),
        stopped=stopped,
        removed=removed,
        restarted=restarted,
        started=started,
    )


if __name__ == "__main__":
    main()
