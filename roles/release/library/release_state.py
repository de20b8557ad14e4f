"""Look at what a host has of an app, and what of it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_python import interpreter
from ansible.module_utils.release_home import Home, environment_of
from ansible.module_utils.release_units import Units

DOCUMENTATION = """
module: release_state
short_description: Look at what a host has of an app, and what of it runs
description:
  - Changes nothing. What it means for a release is said by the filter P(compared#filter).
author: Flaskstack
"""
UNITS = Path("/etc/systemd/system")
OPTIONS = {
    "root": {"type": "path", "required": True},
    "app": {"type": "str", "required": True},
    "python": {"type": "str", "default": ""},  # 3.12, python3 or a path; empty is not looked for
    "processes": {"type": "list", "elements": "str", "default": []},
}


def planned_strategy(unit: Path) -> str:
    """Return how a release is to take over on this host: role gunicorn wrote it into its unit."""
    said = (
        re.search(r"^X-ReleaseStrategy=(\w+)$", unit.read_text(), re.MULTILINE)
        if unit.exists()
        else None
    )
    return said[1] if said else "switch"


def settled(home: Home, units: Units, processes: list[str]) -> bool:
    """Say whether all of what serves runs, and nothing is left to clean up."""
    slot = home.live()
    if not slot or home.current() != home.serving() or home.under_way():
        return False
    if home.release_in(home.free()):
        return False
    needed = [f"{home.app}-web@{slot}.socket", f"{home.app}-web@{slot}.service", *processes]
    return all(unit["ActiveState"] == "active" for unit in units.show(needed).values())


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted: dict[str, Any] = module.params
    home, units = Home(wanted["root"], wanted["app"]), Units(module.run_command)
    releases = [path for path in home.newest_first() if not path.name.startswith(".")]
    module.exit_json(
        changed=False,
        current=home.serving(),  # release that has the traffic, empty when there is none
        slot=home.live(),  # its slot
        previous=home.previous(),  # release that served before it
        settled=settled(home, units, wanted["processes"]),
        strategy=planned_strategy(UNITS / f"{wanted['app']}-web@.service"),  # switch or restart
        under_way=home.under_way(),  # of a deploy that has begun and not ended
        releases=[path.name for path in releases],
        environments={path.name: environment_of(path) for path in releases},  # that they use
        installed=home.installed(),  # environments that are complete
        history=home.history(),  # the oldest first
        python=interpreter(module, wanted["python"]) if wanted["python"] else {},
    )


if __name__ == "__main__":
    main()
