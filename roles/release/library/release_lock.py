"""Let one deploy at a time go on: it holds a ticket, which another one reads."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.deploy_ticket import Ticket, alone, describe, read, write

DOCUMENTATION = """
module: release_lock
short_description: Hold the ticket that lets one deploy at a time go on
description:
  - Takes the ticket, refuses to where another deploy holds it, or gives it back.
  - Who asks is told by the action plugin of the same name, on the controller.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "required": True},  # of the ticket
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "release": {"type": "str", "default": ""},  # what is deployed
    "timeout": {"type": "int", "default": 3600},  # seconds until a ticket of elsewhere has expired
    "force": {"type": "bool", "default": False},  # take it from whoever holds it
    "by": {"type": "str", "default": ""},  # user@controller
    "controller": {"type": "str", "default": ""},  # where process ids are those of `running`
    "pid": {"type": "int", "default": 0},  # of ansible-playbook on the controller
    "running": {"type": "list", "elements": "int", "default": []},  # all that run there
}


def is_own(ticket: Ticket, wanted: dict[str, Any]) -> bool:
    """Say whether the process that asks holds the ticket."""
    return (ticket.get("controller"), ticket.get("pid")) == (wanted["controller"], wanted["pid"])


def is_over(ticket: Ticket, wanted: dict[str, Any], now: int) -> bool:
    """Say whether the deploy that took the ticket cannot go on any more."""
    if ticket.get("controller") == wanted["controller"]:
        return ticket.get("pid") not in wanted["running"]
    return now - ticket["time"] > wanted["timeout"]


def take(path: Path, wanted: dict[str, Any], now: int) -> dict[str, Any]:
    """Return the new ticket, and the one that it replaces; or `refused`, why there is none."""
    held = read(path)
    if held and not (is_own(held, wanted) or is_over(held, wanted, now) or wanted["force"]):
        refused = (
            f"Another deploy is on its way: {describe(held, now)}. Wait until it has ended. If it "
            f"cannot have survived, -e release_lock=break takes its place; after "
            f"release_lock_timeout ({wanted['timeout']} s) that happens by itself"
        )
        return {"holder": held, "refused": refused}
    ticket = {key: wanted[key] for key in ("by", "controller", "pid", "release")} | {"time": now}
    ticket["since"] = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write(path, ticket)
    return {"ticket": ticket, "replaced": {} if is_own(held, wanted) else held}


def give_back(path: Path, wanted: dict[str, Any]) -> bool:
    """Remove the ticket, if it is still one's own."""
    if not is_own(read(path), wanted):
        return False
    path.unlink()
    return True


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted: dict[str, Any] = module.params
    path, now = Path(wanted["path"]), int(time.time())
    if module.check_mode or (wanted["state"] == "absent" and not path.parent.is_dir()):
        module.exit_json(changed=False, ticket={}, replaced={})
    with alone(path.parent):
        if wanted["state"] == "absent":
            module.exit_json(changed=False, given_back=give_back(path, wanted))
        result = take(path, wanted, now)
    if "refused" in result:
        module.fail_json(msg=result["refused"], holder=result["holder"])
    replaced = result["replaced"]
    # One of this controller that was cut is nobody's news; one of elsewhere may be.
    if replaced and replaced.get("controller") != wanted["controller"]:
        module.warn(f"This deploy takes the place of another one: {describe(replaced, now)}.")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
