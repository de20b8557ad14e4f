"""A change of what serves: begun, proved, made, undone, and cleaned up after one that was cut."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from flaskstack.home import SLOTS, Home
from flaskstack.errors import FailedError
from flaskstack.units import Health, Units, Watch, report

# What every module that changes something is told.
OPTIONS: dict[str, Any] = {
    "root": {"type": "path", "required": True},
    "app": {"type": "str", "required": True},
    "id": {"type": "str", "required": True},
    "processes": {"type": "list", "elements": "str", "default": []},
    "path": {"type": "str", "required": True},
    "headers": {"type": "dict", "default": {}},
    "status": {"type": "int", "default": 200},
    "body": {"type": "str", "default": ""},
    "timeout": {"type": "int", "required": True},
    "warm_up": {"type": "list", "elements": "str", "default": []},
    "commit": {"type": "str", "default": ""},
    "by": {"type": "str", "default": ""},
    "action": {"type": "str", "default": "deploy"},  # or rollback
    "watch": {"type": "float", "required": True},
    # Masked by Ansible wherever they are in a module's answer, the journal included.
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
}


def run(act: Callable[[Change, dict[str, Any]], dict[str, Any]], options: dict[str, Any]) -> None:
    """Have `act` change a host as an Ansible module, with nobody else at it.

    It gets the change and all that the module was told, `options` among it. It returns the module's
    answer; one with a message is a failure.
    """
    module = AnsibleModule(argument_spec=OPTIONS | options)
    change = Change(module)
    with change.home.locked():
        result = act(change, module.params)
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(changed=True, **result)


class Change:
    """The change of one host's app to a release."""

    def __init__(self, module: Any) -> None:
        """Read what an Ansible module was told."""
        wanted = module.params
        self.home = Home(wanted["root"], wanted["app"])
        self.units = Units(module.run_command)
        health = Health(wanted["path"], wanted["headers"], wanted["status"], wanted["body"])
        # A busy host is slow with an answer, which is no reason to go back.
        self.watch = Watch(self.units, health, max(10, wanted["timeout"]))
        self.id, self.processes = wanted["id"], wanted["processes"]
        self.timeout, self.length = wanted["timeout"], wanted["watch"]
        self.warm_up = wanted.get("warm_up", [])
        self.action = wanted.get("action", "deploy")
        self.began = time.time()

    def socket(self, slot: str) -> str:
        """Return a slot's socket unit."""
        return f"{self.home.app}-web@{slot}.socket"

    def service(self, slot: str) -> str:
        """Return a slot's service."""
        return f"{self.home.app}-web@{slot}.service"

    def prepare(self) -> None:
        """Clean up, and see to it that the release is there."""
        self.recover(keep=self.id)
        if not (self.home.releases / self.id).is_dir():
            raise FailedError("Find the release", "it is not on this host")

    def note(self, slot: str, strategy: str, commit: str, by: str) -> dict[str, Any]:
        """Begin, and return the note of it: how it is, and how it is to be."""
        home = self.home
        note = {
            "id": self.id,
            "slot": slot,
            "live": home.live(),
            "serving": home.serving(),
            "previous": home.previous(),
            "strategy": strategy,
            "commit": commit,
            "by": by,
            "action": self.action,
        }
        home.begin(**note)
        return note

    def forward(self, note: dict[str, Any]) -> None:
        """Move everything to the new release, save the background processes."""
        again = note["serving"] == note["id"]
        self.home.serve(note["slot"], note["id"], note["previous" if again else "serving"])

    def back(self, note: dict[str, Any], keep: str = "") -> None:
        """Let serve again what served before a deploy that did not succeed; keep one release."""
        old, new, home = note["live"], note["slot"], self.home
        if not old:  # This was the first release. Sockets would start what they belong to.
            home.serve("", "", "")
            self.units.kill(self.socket(new), self.service(new), *self.processes)
            home.vacate(new)
        elif old == new:
            home.occupy(old, note["serving"])
            home.serve(old, note["serving"], note["previous"])
            self.again(self.service(old), *self.processes)
            self.well_again(old)
        else:
            moved = home.current() != note["serving"]
            home.serve(old, note["serving"], note["previous"])
            if moved:  # it may hold requests
                self.again(*self.processes)
                self.drain(new)
                self.units.gone(self.socket(new), self.service(new))
            else:
                self.units.kill(self.socket(new), self.service(new))
                home.vacate(new)
        if note["id"] != keep:
            home.discard(note["id"])
        home.end()

    def again(self, *units: str) -> None:
        """Restart what belongs to the old release. What fails now has a journal of its own."""
        self.units.restart(*units)
        with suppress(FailedError):
            Watch(self.units, self.watch.health).until_up("Go back", list(units))

    def well_again(self, slot: str) -> None:
        """Give the old release the time to answer, before it is said that it serves."""
        with suppress(FailedError):
            watch = Watch(self.units, self.watch.health)
            watch.until_well("Go back", self.service(slot), self.home.socket(slot), self.timeout)

    def drain(self, slot: str, looks: int = 3) -> None:
        """Stop an instance once none has waited for it at so many looks in a row."""
        units, path = [self.socket(slot), self.service(slot)], self.home.socket(slot)
        empty, deadline = 0, time.monotonic() + self.units.patience(*units)
        while empty < looks and time.monotonic() < deadline:
            empty = 0 if self.units.queue(path) else empty + 1
            time.sleep(0.05)
        self.units.tell("stop", *units)
        self.home.vacate(slot)

    def finish(self, note: dict[str, Any]) -> None:
        """Let the old instance finish what it holds, and write the deploy down."""
        if note["live"] not in ("", note["slot"]):
            # After a watch nobody is on the way to it any more.
            self.drain(note["live"], looks=1 if self.length >= 1 else 3)
        action = note.get("action", "deploy")
        self.home.record(note["id"], note["serving"], note["commit"], note["by"], action)
        self.home.end()

    def recover(self, keep: str = "") -> None:
        """End a deploy that was cut: forward when it had switched, back otherwise."""
        note = self.home.under_way()
        if note and note["strategy"] == "switch" and note["slot"] == self.home.live():
            self.forward(note)
            self.units.restart(*self.processes)
            self.finish(note)
        elif note:
            self.back(note, keep)
        for slot in set(SLOTS) - {self.home.live()}:
            units = [self.socket(slot), self.service(slot)]
            states = {said["ActiveState"] for said in self.units.show(units).values()}
            if self.home.release_in(slot) or states & {"active", "activating"}:
                self.drain(slot)

    def fail(self, error: FailedError, note: dict[str, Any]) -> dict[str, Any]:
        """Go back, and return what to say of a release that is not in use."""
        failed = time.time()
        with suppress(FailedError):  # what is left of it, the next deploy cleans up
            if note:
                self.back(note)  # at once: after a restart nobody is served until then
        journal = self.units.journal(error.unit, self.began, failed) if error.unit else []
        return report(self.id, error, self.home.serving(), journal)
