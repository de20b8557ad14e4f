"""Wait until an app answers on its Unix socket that it is well."""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: release_health
short_description: Wait until an app answers that it is well
description: Asks its health path until that answers 200 and all units run. Changes nothing.
author: Flaskstack
"""
OPTIONS = {
    "socket": {"type": "path", "required": True},
    "path": {"type": "str", "required": True},
    "headers": {"type": "dict", "default": {}},
    "units": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "int", "required": True},
}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        """Connect to the socket that the host's name stands for."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def ask(
    path: str, url: str, headers: dict[str, str], patience: Callable[[], bool]
) -> tuple[int, str]:
    """Return the status and an answer for people. It may queue for as long as there is patience."""
    connection = UnixConnection(path, timeout=10)
    try:
        connection.request("GET", url, headers=headers)
        while not select.select([connection.sock], [], [], 0.5)[0]:
            if not patience():
                return 0, "no answer"
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace").strip()
        return answer.status, f"{answer.status} {answer.reason} {body}".strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def broken_units(module: AnsibleModule, units: list[str]) -> tuple[list[str], bool]:
    """Name the units that do not run; say whether one gave up, or died since it was started."""
    shown = ["systemctl", "show", "--property=Id,ActiveState,NRestarts", *units]
    _, output, _ = module.run_command(shown, check_rc=True)
    broken, hopeless = [], False
    for block in output.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines())
        died = unit.get("NRestarts", "0") != "0"
        if unit["ActiveState"] != "active" or died:
            broken.append(
                f"{unit['Id']} is {unit['ActiveState']}"
                + (f" and died {unit['NRestarts']} times" if died else "")
            )
            hopeless = hopeless or died or unit["ActiveState"] == "failed"
    return broken, hopeless


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted = module.params
    started = time.monotonic()
    deadline = started + wanted["timeout"]

    def patience() -> bool:
        return time.monotonic() < deadline and not broken_units(module, wanted["units"])[1]

    while True:
        status, answer = ask(wanted["socket"], wanted["path"], wanted["headers"], patience)
        broken, _ = broken_units(module, wanted["units"])
        result = {
            "answer": answer,
            "seconds": round(time.monotonic() - started, 1),
            "changed": False,
        }
        if status == 200 and not broken:
            module.exit_json(**result)
        if not patience():
            said = f"GET {wanted['path']} on {wanted['socket']}: {answer}"
            module.fail_json(msg="; ".join([said, *broken]), **result)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
