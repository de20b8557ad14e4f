"""Put a release into its folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: place_release
short_description: Put a release into its folder
description:
  - Unpacks a release from its archive, complete or not at all, and links it to its environment.
  - The archive is on the controller. The action plugin of the same name brings it to the host.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "archive": {"type": "path", "required": True},
    "releases": {"type": "path", "required": True},  # folder that holds a folder for each release
    "id": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},  # name of one beside the releases
}


def place(module: AnsibleModule, archive: str, folder: Path, environment: str) -> None:
    """Fill a folder from the archive, and make its code ready to be run."""
    folder.mkdir()
    unpack = ["tar", "--extract", "--gzip", "--no-same-owner", f"--directory={folder}"]
    module.run_command([*unpack, f"--file={archive}"], check_rc=True)
    (folder / ".venv").symlink_to(f"../../environments/{environment}")
    # The app cannot write into a release, so its bytecode is made here. A file that does not
    # compile (a template of code, say) is no reason to fail: the health check decides.
    module.run_command(
        [str(folder / ".venv/bin/python"), "-m", "compileall", "-qq", "."], cwd=folder
    )


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS)
    wanted = module.params
    release = Path(wanted["releases"]) / wanted["id"]
    partial = release.with_name(f".{release.name}")
    os.umask(0o022)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        place(module, wanted["archive"], partial, wanted["environment"])
        shutil.rmtree(release, ignore_errors=True)  # one that was cut, or another environment's
        partial.rename(release)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
