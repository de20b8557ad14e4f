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
    wanted = module.params
    program = FOLDER / wanted["program"]
    os.umask(0o022)
    if not program.exists():
        if not wanted["source"]:
            module.exit_json(changed=False, missing=True)
        if module.check_mode:
            program = Path(wanted["source"])
        else:
            install(Path(wanted["source"]), program)
    # The program continues if the connection, and with it this module, ends.
    done = subprocess.run(
        [sys.executable, "-I", program, "call", wanted["call"]],
        cwd="/",
        input=wanted["input"],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = (done.stdout + done.stderr).strip().splitlines()[-20:]
        module.fail_json(msg="\n".join([f"flaskstack {wanted['call']} ended early:", *said]))
    for warning in answer.pop("warnings", []):
        module.warn(warning)
    if answer.get("failed"):
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
