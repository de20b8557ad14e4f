"""Identify the deploy: user, controller and process."""

from __future__ import annotations

import getpass
import multiprocessing
import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def playbook_process() -> int:
    """Return the process id of ansible-playbook, the parent of a task's process."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent and parent.pid else os.getpid()


def controller() -> str:
    """Return an id of the process namespace, which differs between containers of the same name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return platform.node()


def running_playbooks() -> list[int]:
    """Return the ids of Ansible's processes on this controller."""
    try:
        folders = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:  # not Linux
        shown = subprocess.run(
            ["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True
        )
        lines = (line.split(None, 1) for line in shown.stdout.splitlines())
        return [int(line[0]) for line in lines if "ansible" in line[-1]]
    return [int(name) for name in folders if b"ansible" in _command_line(name)]


def _command_line(process: str) -> bytes:
    try:
        return Path("/proc", process, "cmdline").read_bytes()
    except OSError:  # the process has ended or is not readable
        return b""


def person() -> str:
    """Return user@controller."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no entry, as in a container
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def holder() -> dict[str, Any]:
    """Return the `flaskstack.deploy_lock.Holder` of this playbook, without its `release`."""
    return {
        "by": person(),
        "controller": controller(),
        "pid": playbook_process(),
        "running": running_playbooks(),
    }
