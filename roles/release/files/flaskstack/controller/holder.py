"""Identify the deploy: user, controller and process.

It reads /proc or runs ps, since psutil would be one more compiled package on the controller.
"""

from __future__ import annotations

import getpass
import multiprocessing
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from flaskstack.errors import run


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
    if not Path("/proc/self").exists():  # not Linux
        lines = run(["ps", "-axo", "pid=,command="]).splitlines()
        return [int(line.split()[0]) for line in lines if "ansible" in line]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended or is not readable
            if b"ansible" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def operator() -> str:
    """Return user@controller."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no name, for example in a container
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def holder() -> dict[str, Any]:
    """Return the `flaskstack.deploy_lock.Holder` of this playbook, without its `release`."""
    return {
        "by": operator(),
        "controller": controller(),
        "pid": playbook_process(),
        "running": running_playbooks(),
    }
