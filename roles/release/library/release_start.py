"""Start a release beside the one that serves, and prove that it is well."""

from __future__ import annotations

from threading import Thread
from typing import Any

from ansible.module_utils.release_change import Change, run
from ansible.module_utils.release_units import FailedError

DOCUMENTATION = """
module: release_start
short_description: Start a release beside the one that serves
description:
  - Cleans up after a deploy that was cut, starts the release in the free slot, asks it whether
    it is well, warms it up, and watches it meanwhile.
  - The one that serves is not touched. Of a release that is not well nothing is left.
  - With I(state=absent) it only cleans up, and removes the release unless it has ever served.
author: Flaskstack
"""
VISITORS = 4  # at once for each worker: one takes what another left


def start(change: Change, wanted: dict[str, Any]) -> dict[str, Any]:
    """Start the release in the free slot."""
    home, watch, note = change.home, change.watch, {}
    try:
        if wanted["state"] == "absent":
            change.recover()
            home.discard(change.id)
            return {"current": home.serving()}
        change.prepare()
        slot = home.free()
        service, door = change.service(slot), home.socket(slot)
        change.units.gone(change.socket(slot), service)  # the one before the last may still finish
        note = change.note(slot, "switch", wanted["commit"], wanted["by"])
        home.occupy(slot, change.id)
        change.units.start(change.socket(slot), service)
        answer = watch.until_well("Start the release", service, door, change.timeout)
        watch.remember(service, workers=True)
        visits = (door, change.warm_up, VISITORS * len(watch.workers[service]))
        visitors = Thread(target=watch.health.warm, args=visits, daemon=True)
        visitors.start()
        step, length = "Watch the release", change.length
        watch.stay_well(step, [service], service, door, length, visitors=visitors)
    except FailedError as error:
        return change.fail(error, note)
    return {"answer": answer, "slot": slot, "current": home.serving()}


def main() -> None:
    """Run as an Ansible module."""
    states = {"type": "str", "choices": ["started", "absent"], "default": "started"}
    run(start, {"state": states})


if __name__ == "__main__":
    main()
