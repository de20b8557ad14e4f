"""Run ansible-playbook on this machine."""

from __future__ import annotations

import os
import subprocess

from helpers.repository import ANSIBLE_PLAYBOOK, ROOT


def run_playbook(*arguments: object, **environment: str) -> tuple[int, str]:
    """Return the exit code and the output, with white space collapsed."""
    settings = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        "ANSIBLE_SSH_ARGS": "-o ConnectTimeout=1",
    }
    result = subprocess.run(
        [ANSIBLE_PLAYBOOK, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | settings | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, " ".join((result.stdout + result.stderr).split())
