"""A change of what serves: begun, proved, made, undone, and cleaned up after one that was cut.

What serves is a release with its settings. Both change together, in one slot or the other.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from threading import Thread
from typing import Any

from flaskstack.errors import FailedError
from flaskstack.files import remove
from flaskstack.hints import advice, decisive
from flaskstack.home import SLOTS, Home
from flaskstack.settings import FORMER, Settings
from flaskstack.units import Health, Units, Watch

VISITORS = 4  # at once for each worker: one takes what another left


class Change:
    """The change of one host's app to a release with a set of settings."""

    def __init__(self, wanted: dict[str, Any], units: Units | None = None) -> None:
        """Take `app`, `root`, `release` (its id) and `settings` (name of a set).

        Also, each optional: `commit`, `by` (who), `action` (deploy, rollback, restart, rotation).
        """
        self.home = Home(wanted["root"], wanted["app"])
        self.settings = Settings(wanted["app"])
        self.units = units or Units()
        self.id, self.set = wanted.get("release", ""), wanted.get("settings", "")
        self.about = {"commit": wanted.get("commit", ""), "by": wanted.get("by", "")}
        self.about["action"] = wanted.get("action", "deploy")
        self.proof = self.settings.release(self.set)
        self.watch = self.watcher(self.proof)
        self.began = time.time()

    def watcher(self, proof: dict[str, Any]) -> Watch:
        """Return what asks and watches an instance, as its settings say."""
        asked = proof.get("health", {"path": "/", "headers": {}, "status": 200, "body": ""})
        # A busy host is slow with an answer, which is no reason to go back.
        return Watch(self.units, Health(**asked), max(10, proof.get("timeout", 30)))

    @property
    def strategy(self) -> str:
        """Return how the release takes over: `switch`, or `restart` where memory is scarce."""
        return self.proof.get("strategy", "switch")

    def socket(self, slot: str) -> str:
        """Return a slot's socket unit."""
        return f"{self.home.app}-web@{slot}.socket"

    def service(self, slot: str) -> str:
        """Return a slot's service."""
        return f"{self.home.app}-web@{slot}.service"

    def processes(self, name: str) -> tuple[list[str], list[str]]:
        """Return the services and the timers of a set of settings."""
        proof = self.settings.release(name)
        return proof.get("services", []), proof.get("timers", [])

    # Steps of a change.

    def start(self) -> dict[str, Any]:
        """Start the release beside the one that serves, which is not touched, and prove it."""
        note: dict[str, Any] = {}
        try:
            self.prepare()
            if self.strategy == "restart":  # all of it happens in the next step
                return self.serving()
            slot = self.home.free()
            service, door = self.service(slot), self.home.socket(slot)
            self.units.gone(self.socket(slot), service)  # the one before may still finish
            note = self.note(slot, "switch")
            self.occupy(slot, self.id, self.set)
            self.units.start(self.socket(slot), service)
            timeout = self.proof.get("timeout", 30)
            answer = self.watch.until_well("Start the release", service, door, timeout)
            self.watch.remember(service, workers=True)
            visits = (door, self.proof.get("warm_up", []))
            visits += (VISITORS * len(self.watch.workers[service]),)
            visitors = Thread(target=self.watch.health.warm, args=visits, daemon=True)
            visitors.start()
            length = self.proof.get("watch", 1)
            step = "Watch the release"
            self.watch.stay_well(step, [service], service, door, length, visitors=visitors)
        except FailedError as error:
            self.fail(error, note)
        return self.serving() | {"answer": answer, "slot": slot}

    def switch(self) -> dict[str, Any]:
        """Give the started release the traffic and the background processes.

        Where the strategy is `restart` it takes the place of the one that serves instead, while
        requests wait in the socket. What is not well goes back to what served before.
        """
        note: dict[str, Any] = {}
        try:
            if self.strategy == "restart":
                self.prepare()
                note = self.note(self.home.live() or "a", "restart")
                self.restart(note)
            else:
                note = self.begun()
                self.forward(note)
            self.follow(note)
        except FailedError as error:
            self.fail(error, note)
        self.finish(note)
        removed = self.home.prune(self.proof.get("keep", 5))
        last = {path.name: self.home.settings_of(path.name) for path in self.home.newest_first()}
        self.settings.prune({*last.values(), note["serving_settings"]} - {FORMER})
        before = {"previous": note["serving"], "previous_settings": note["serving_settings"]}
        return self.serving() | before | {"removed": removed}

    def undo(self, switched: dict[str, Any]) -> dict[str, Any]:
        """Leave nothing of the change: where it had `switched`, what served before serves again.

        `switched` is what `switch` returned, empty where it did not get so far.
        """
        self.recover()
        if switched.get("previous") and self.home.serving() == self.id:
            back = {"app": self.home.app, "root": str(self.home.root), "action": "rollback"}
            back |= {"release": switched["previous"], "by": self.about["by"]}
            before = switched["previous_settings"]
            back["settings"] = before if self.settings.there(before) else self.settings.current()
            change = Change(back, self.units)
            change.start()
            change.switch()
        self.home.discard(self.id)
        return self.serving()

    def serving(self) -> dict[str, Any]:
        """Return what serves: release and settings."""
        return {"current": self.home.serving(), "settings": self.settings.current()}

    # Parts of these.

    def prepare(self) -> None:
        """Clean up, and see to it that all is there."""
        self.recover(keep=self.id)
        if not (self.home.releases / self.id).is_dir():
            raise FailedError("Find the release", f"{self.id} is not on this host")
        if not self.settings.there(self.set):
            raise FailedError("Find the settings", f"{self.set or 'none'} is not on this host")

    def note(self, slot: str, strategy: str) -> dict[str, Any]:
        """Begin, and return the note of it: how it is, and how it is to be."""
        home, live = self.home, self.home.live()
        note = {
            "id": self.id,
            "settings": self.set,
            "slot": slot,
            "live": live,
            "serving": home.serving(),
            "serving_settings": self.settings.in_slot(live),
            "previous": home.previous(),
            "strategy": strategy,
            **self.about,
        }
        home.begin(**note)
        return note

    def begun(self) -> dict[str, Any]:
        """Return the note of the release that was started."""
        note = self.home.under_way()
        started = (self.home.release_in(note.get("slot", "")), note.get("settings"))
        if started != (self.id, self.set):
            raise FailedError("Switch to the release", "it is not started on this host")
        return note

    def occupy(self, slot: str, release: str, settings: str) -> None:
        """Give a slot a release with its settings."""
        changed = self.settings.occupy(slot, settings)
        self.home.occupy(slot, release)
        if changed:
            self.units.reload()

    def restart(self, note: dict[str, Any]) -> None:
        """Restart the app in its slot, behind its socket."""
        socket, service = self.socket(note["slot"]), self.service(note["slot"])
        self.occupy(note["slot"], self.id, self.set)
        self.forward(note)
        self.units.start(socket)
        self.units.restart(service)
        self.watch.until_up("Start the release", [service])
        door, timeout = self.home.socket(note["slot"]), self.proof.get("timeout", 30)
        self.watch.until_well("Start the release", service, door, timeout)

    def forward(self, note: dict[str, Any]) -> None:
        """Move everything to the new release and settings. Services restart later.

        The requests are last: until then a change that is cut is undone, afterwards it is finished.
        """
        self.stop_undeclared(note["settings"])
        if changed := self.settings.use(note["settings"]):
            self.units.reload()
            declared = self.processes(note["settings"])[1]
            self.units.restart(*(unit for unit in changed if unit in declared))
        self.point(note)

    def point(self, note: dict[str, Any]) -> None:
        """Point all links to the new release."""
        again = note["serving"] == note["id"]
        self.home.serve(note["slot"], note["id"], note["previous" if again else "serving"])

    def stop_undeclared(self, settings: str) -> None:
        """Stop the background processes that a set of settings does not have, timers first."""
        services, timers = self.processes(settings)
        declared = {*services, *timers, *(started_by(timer) for timer in timers)}
        running = self.units.processes(self.home.app) - declared
        self.units.stop(*(unit for unit in running if unit.endswith(".timer")))
        self.units.stop(*(unit for unit in running if not unit.endswith(".timer")))

    def follow(self, note: dict[str, Any]) -> None:
        """Let the background processes follow, and watch everything."""
        slot, watch = note["slot"], self.watch
        service, door = self.service(slot), self.home.socket(slot)
        services, timers = self.processes(self.set)
        watch.remember(service, workers=True)
        self.units.start(*timers, *services)
        self.units.restart(*self.outdated(note, services))
        watch.until_up("Restart the background processes", services)
        watch.remember(*services)
        length = self.proof.get("watch", 1)
        watch.stay_well("Watch the release", [service, *services], service, door, length, services)

    def outdated(self, note: dict[str, Any], services: list[str]) -> list[str]:
        """Return the services that run with anything of before: release, environment, unit."""
        changed = self.settings.changed(note["serving_settings"], self.set) - {"gunicorn.conf.py"}
        same = note["serving"] == self.id and all(path.startswith("units/") for path in changed)
        if not same or note["action"] in ("restart", "rollback"):
            return services
        return [unit for unit in services if f"units/{file_of(unit)}" in changed]

    def back(self, note: dict[str, Any], keep: str = "") -> None:
        """Let serve again what served before a change that did not succeed; keep one release."""
        old, new, home = note["live"], note["slot"], self.home
        services, timers = self.processes(note["serving_settings"])
        now = (home.live(), home.current(), self.settings.current())
        moved = now != (old, note["serving"], note["serving_settings"])
        if not old:  # this was the first release; sockets would start what they belong to
            started = [unit for units in self.processes(note["settings"]) for unit in units]
            self.units.kill(self.socket(new), self.service(new), *started)
        self.stop_undeclared(note["serving_settings"])
        self.restore(note)
        if moved:
            self.units.restart(*timers)
        if not old:
            pass
        elif old == new:
            self.again(self.service(old), *services)
            self.well_again(old, note["serving_settings"])
        elif moved:  # it may hold requests
            self.again(*services)
            self.drain(new)
            self.units.gone(self.socket(new), self.service(new))
        else:
            self.units.kill(self.socket(new), self.service(new))
        if old != new:
            self.vacate(new)
        if note["id"] != keep:
            home.discard(note["id"])
        home.end()

    def restore(self, note: dict[str, Any]) -> None:
        """Put links and unit files back to what served before a change; start and stop nothing."""
        old, settings = note["live"], note["serving_settings"]
        if old == note["slot"]:
            self.occupy(old, note["serving"], settings)
        if self.settings.use(settings):
            self.units.reload()
        self.home.serve(old, note["serving"], note["previous"] if old else "")

    def again(self, *units: str) -> None:
        """Restart what belongs to the old release. What fails now has a journal of its own."""
        self.units.restart(*units)
        with suppress(FailedError):
            Watch(self.units, self.watch.health).until_up("Go back", list(units))

    def well_again(self, slot: str, settings: str) -> None:
        """Give the old release the time to answer, before it is said that it serves."""
        proof = self.settings.release(settings)
        service, door = self.service(slot), self.home.socket(slot)
        with suppress(FailedError):
            self.watcher(proof).until_well("Go back", service, door, proof.get("timeout", 30))

    def drain(self, slot: str, looks: int = 3) -> None:
        """Stop an instance once none has waited for it at so many looks in a row."""
        units, path = [self.socket(slot), self.service(slot)], self.home.socket(slot)
        empty, deadline = 0, time.monotonic() + self.units.patience(*units)
        while empty < looks and time.monotonic() < deadline:
            empty = 0 if self.units.queue(path) else empty + 1
            time.sleep(0.05)
        self.units.tell("stop", *units)
        self.vacate(slot)

    def vacate(self, slot: str) -> None:
        """Note that a slot is not in use."""
        self.home.occupy(slot, "")
        self.settings.occupy(slot, "")

    def finish(self, note: dict[str, Any]) -> None:
        """Let the old instance finish what it holds, and write the deploy down."""
        self.home.begin(**note | {"done": True})
        if note["live"] not in ("", note["slot"]):
            # After a watch nobody is on the way to it any more.
            self.drain(note["live"], looks=1 if self.proof.get("watch", 1) >= 1 else 3)
        self.home.record(note)
        target = f"{self.home.app}.target"
        self.units.enable(target)
        if not note["live"]:  # later on it would start again what is being stopped
            self.units.start(target)
        if note["settings"] != FORMER and (former := self.settings.former()):
            for slot in set(SLOTS) - {note["slot"]}:
                self.units.gone(self.socket(slot), self.service(slot))
            for path in former:
                remove(path)
            self.units.reload()
            (self.home.root / ".migrate.lock").unlink(missing_ok=True)
        self.home.end()

    def left(self) -> dict[str, Any]:
        """Return the note that a change left when it was cut; empty when there is none.

        What is not in it, such as in one that cannot be read, is as the live slot has it.
        """
        home, live = self.home, self.home.live()
        now = {"live": live, "slot": home.free(), "serving": home.serving(), **self.about}
        now |= {"strategy": "switch", "previous": home.previous()}
        now |= dict.fromkeys(("settings", "serving_settings"), self.settings.in_slot(live))
        note = home.under_way()
        return now | note if note else {}

    def recover(self, keep: str = "") -> None:
        """End a change that was cut: forward when it had switched, back otherwise."""
        if note := self.left():
            self.units.reload()  # it may have written units without that
            if committed(note, self.home):
                self.forward(note)
                self.units.restart(*self.processes(note["settings"])[0])
                self.finish(note)
            else:
                self.back(note, keep)
            services, timers = self.processes(self.settings.current())
            self.units.start(*services)
            self.units.restart(*timers)
        for slot in set(SLOTS) - {self.home.live()}:
            units = [self.socket(slot), self.service(slot)]
            states = {said["ActiveState"] for said in self.units.show(units).values()}
            if self.home.release_in(slot) or states & {"active", "activating"}:
                self.drain(slot)

    def recover_at_boot(self) -> None:
        """End a change that a power cut ended, before the units start: files and links only."""
        note = self.left()
        if not note:
            return
        if committed(note, self.home):  # its links and files came first
            self.home.record(note)
        else:
            self.restore(note)
        for slot in set(SLOTS) - {self.home.live()}:
            self.vacate(slot)
        self.units.reload()
        self.home.end()

    def fail(self, error: FailedError, note: dict[str, Any]) -> None:
        """Go back, and raise what to say of a release that is not in use."""
        failed = time.time()
        with suppress(FailedError):  # what is left of it, the next deploy cleans up
            if note:
                self.back(note)  # at once: after a restart nobody is served until then
        journal = self.units.journal(error.unit, self.began, failed) if error.unit else []
        lines = [f'{self.id} is not in use: it failed at "{error.step}": {error}.']
        lines += [error.answer] if error.answer else []
        why = decisive(journal)
        lines += [f"From the journal of {error.unit}:", *why] if why else []
        hint = advice("\n".join([error.answer, *journal]))
        lines += [hint] if hint else []
        raise FailedError(error.step, "\n".join(lines), error.unit, error.answer) from error


def committed(note: dict[str, Any], home: Home) -> bool:
    """Return whether a change had given its release the traffic when it was cut."""
    switched = note["strategy"] == "switch" and note["slot"] == home.live()
    return switched or note.get("done", False)


def file_of(unit: str) -> str:
    """Return the name of a service's file; that of an instance is its template's."""
    return re.sub(r"@[^@]*\.service$", "@.service", unit)


def started_by(timer: str) -> str:
    """Return the service that a timer starts."""
    return timer.removesuffix(".timer") + ".service"
