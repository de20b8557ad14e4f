"""Run the program `flaskstack` on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: flaskstack
short_description: Call the program flaskstack
description:
  - Runs a call of the program, which is in one file on the host. Without that file the answer is
    C(missing), and the action plugin of the same name sends it.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "program": {"type": "str", "required": True},  # file name, which contains its hash
    "source": {"type": "path"},  # file on the host to install
    "call": {"type": "str", "required": True},
    "input": {"type": "str", "required": True, "no_log": True},  # JSON
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
}
FOLDER = Path("/usr/local/lib/flaskstack")
COMMAND = Path("/usr/local/bin/flaskstack")
KEEP = 3  # versions: inventories of several apps may share a host


def install(source: Path, program: Path) -> None:
    """Install the program, and link the operator's command to it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = program.with_name(f".{program.name}")
    with partial.open("wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())  # complete or absent after a power cut
    partial.chmod(0o755)
    partial.rename(program)
    link = COMMAND.with_name(".flaskstack.new")
    link.unlink(missing_ok=True)
    link.symlink_to(program)
    link.replace(COMMAND)
    versions = sorted(FOLDER.glob("flaskstack-*.pyz"), key=lambda path: path.stat().st_mtime)
    for old in versions[:-KEEP]:
        old.unlink()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    program = FOLDER / params["program"]
    os.umask(0o022)
    if not program.exists():
        if not params["source"]:
            module.exit_json(changed=False, missing=True)
        if module.check_mode:
            program = Path(params["source"])
        else:
            install(Path(params["source"]), program)
    # The program continues if the connection, and with it this module, ends.
    process = subprocess.run(
        [sys.executable, "-I", program, "call", params["call"]],
        cwd="/",
        input=params["input"],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    try:
        result = json.loads(process.stdout)
    except ValueError:
        output = (process.stdout + process.stderr).strip().splitlines()[-20:]
        module.fail_json(msg="\n".join([f"flaskstack {params['call']} ended early:", *output]))
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
