"""Give a release the traffic and the background processes, and let the old one finish."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.release_change import Change, run
from ansible.module_utils.release_units import FailedError

DOCUMENTATION = """
module: release_switch
short_description: Give a release the traffic
description:
  - Switches to the release that M(release_start) has started, in one step, and restarts the
    background processes.
  - With I(strategy=restart) it restarts the instance behind its socket instead, where requests
    wait meanwhile.
  - When something dies it goes back. Otherwise the old instance stops once it has answered what
    it holds.
author: Flaskstack
"""


def begun(change: Change) -> dict[str, Any]:
    """Return the note of the release that was started."""
    note = change.home.under_way()
    if note.get("id") != change.id or change.home.release_in(note["slot"]) != change.id:
        raise FailedError("Switch to the release", "it is not started on this host")
    return note


def restart(change: Change, note: dict[str, Any]) -> None:
    """Restart the app in its slot, behind its socket."""
    socket, service = change.socket(note["slot"]), change.service(note["slot"])
    change.home.occupy(note["slot"], change.id)
    change.forward(note)
    change.units.start(socket)
    change.units.restart(service)
    change.watch.until_up("Start the release", [service])
    door = change.home.socket(note["slot"])
    change.watch.until_well("Start the release", service, door, change.timeout)


def follow(change: Change, slot: str) -> None:
    """Let the background processes follow, and watch everything."""
    service, watch, door = change.service(slot), change.watch, change.home.socket(slot)
    watch.remember(service, workers=True)
    change.units.restart(*change.processes)
    watch.until_up("Restart the background processes", change.processes)
    watch.remember(*change.processes)
    everything = [service, *change.processes]
    step, new = "Watch the release", change.processes
    watch.stay_well(step, everything, service, door, change.length, new)


def activate(change: Change, wanted: dict[str, Any]) -> dict[str, Any]:
    """Put the release in use, or what served before again."""
    note: dict[str, Any] = {}
    try:
        if wanted["strategy"] == "restart":
            change.prepare()
            slot = change.home.live() or "a"
            note = change.note(slot, "restart", wanted["commit"], wanted["by"])
            restart(change, note)
        else:
            note = begun(change)
            change.forward(note)
        follow(change, note["slot"])
    except FailedError as error:
        return change.fail(error, note)
    change.finish(note)
    removed = change.home.prune(wanted["keep"])
    return {"current": change.id, "previous": note["serving"], "removed": removed}


def main() -> None:
    """Run as an Ansible module."""
    strategies = {"type": "str", "choices": ["switch", "restart"], "default": "switch"}
    run(activate, {"strategy": strategies, "keep": {"type": "int", "required": True}})


if __name__ == "__main__":
    main()
