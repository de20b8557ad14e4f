"""Compare a release with what a host has."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_home import Home, environment_of
from ansible.module_utils.release_units import Units

DOCUMENTATION = """
module: release_state
short_description: Compare a release with what a host has
description: Changes nothing. Says what is there, what serves, and what a release still needs.
author: Flaskstack
"""
UNITS = Path("/etc/systemd/system")
OPTIONS = {
    "root": {"type": "path", "required": True},
    "app": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "lock_hash": {"type": "str", "default": ""},
    "python": {"type": "str", "default": ""},
    "processes": {"type": "list", "elements": "str", "default": []},
}


def interpreter(module: AnsibleModule, name: str) -> tuple[str, str]:
    """Return an interpreter's version and real path; both empty when there is none."""
    path = module.get_bin_path(name) if name else None
    if not path:
        return "", ""
    asked = "import platform, sys; print(platform.python_version(), sys.executable)"
    _, output, _ = module.run_command([path, "-I", "-c", asked], check_rc=True)
    version, executable = output.split(maxsplit=1)
    return version, os.path.realpath(executable.strip())


def planned_strategy(unit: Path) -> str:
    """Return how a release is to take over on this host: role gunicorn wrote it into its unit."""
    said = (
        re.search(r"^X-ReleaseStrategy=(\w+)$", unit.read_text(), re.MULTILINE)
        if unit.exists()
        else None
    )
    return said[1] if said else "switch"


def serves(home: Home, units: Units, release: str, processes: list[str]) -> bool:
    """Say whether a release has everything, all of it runs, and nothing is left to clean up."""
    slot = home.live()
    if not slot or {release} != {home.current(), home.serving()} or home.under_way():
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
    version, executable = interpreter(module, wanted["python"])
    minor = ".".join(version.split(".")[:2])
    digest = hashlib.sha256(f"{wanted['lock_hash']} {executable}".encode()).hexdigest()[:12]
    environment = f"{digest}-python{minor}"
    release = home.releases / wanted["id"] if wanted["id"] else Path("/nonexistent")
    if not wanted["lock_hash"]:  # a release of before: what it was shipped with
        environment = environment_of(release)
    shipped = environment_of(release) == environment
    installed = (home.environments / environment / ".complete").exists()
    module.exit_json(
        changed=False,
        current=home.serving(),  # release that has the traffic, empty when there is none
        slot=home.live(),  # its slot
        previous=home.previous(),  # release that served before it
        strategy=planned_strategy(UNITS / f"{wanted['app']}-web@.service"),  # switch or restart
        under_way=home.under_way(),  # of a deploy that has begun and not ended
        releases=[path.name for path in home.newest_first() if not path.name.startswith(".")],
        history=home.history(),  # the oldest first
        python=version,  # of the interpreter, empty when there is none
        environment=environment,  # name of the environment that the release needs
        installed=installed,  # it is complete
        shipped=shipped and installed,  # the release is complete and uses it
        serves=shipped and installed and serves(home, units, wanted["id"], wanted["processes"]),
    )


if __name__ == "__main__":
    main()
