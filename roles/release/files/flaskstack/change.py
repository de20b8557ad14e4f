"""Change the active release: start, check, switch, roll back, and recover from interruptions.

A release and its settings change together, in one of the two slots.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from threading import Thread
from typing import Any

from flaskstack.app_dir import SLOTS, AppDir
from flaskstack.errors import DeployError
from flaskstack.hints import advice, decisive
from flaskstack.settings import Settings
from flaskstack.units import Health, Units, Watch

VISITORS = 4  # warm-up requests at once per worker, so that each worker gets some


class Change:
    """The switch of an app on one host to a release with a set of settings."""

    def __init__(self, params: dict[str, Any], units: Units | None = None) -> None:
        """Take `app`, `root`, `release` (its id) and `settings` (name of a set).

        Optional: `commit`, `by` (user), `action` (deploy, rollback, restart, rotation).
        """
        self.app_dir = AppDir(params["root"], params["app"])
        self.settings = Settings(params["app"])
        self.units = units or Units()
        self.id, self.set = params.get("release", ""), params.get("settings", "")
        self.about = {"commit": params.get("commit", ""), "by": params.get("by", "")}
        self.about["action"] = params.get("action", "deploy")
        self.proof = self.settings.release(self.set)
        self.watch = self.watcher(self.proof)
        self.began = time.time()

    def watcher(self, proof: dict[str, Any]) -> Watch:
        """Return the watch of an instance, as configured by its settings."""
        asked = proof.get("health", {"path": "/", "headers": {}, "status": 200, "body": ""})
        # A busy host answers slowly, which must not cause a rollback.
        return Watch(self.units, Health(**asked), max(10, proof.get("timeout", 30)))

    @property
    def strategy(self) -> str:
        """Return the strategy: `switch`, or `restart` where memory is scarce."""
        return self.proof.get("strategy", "switch")

    def socket(self, slot: str) -> str:
        """Return a slot's socket unit."""
        return f"{self.app_dir.app}-web@{slot}.socket"

    def service(self, slot: str) -> str:
        """Return a slot's service."""
        return f"{self.app_dir.app}-web@{slot}.service"

    def processes(self, name: str) -> tuple[list[str], list[str]]:
        """Return the services and the timers of a set of settings."""
        proof = self.settings.release(name)
        return proof.get("services", []), proof.get("timers", [])

    # Steps of a change.

    def start(self) -> dict[str, Any]:
        """Start the release beside the active one and check it. The active one is not touched."""
        pending: dict[str, Any] = {}
        try:
            self.prepare()
            if self.strategy == "restart":  # `switch` does everything
                return self.serving()
            slot = self.app_dir.free()
            service, socket_path = self.service(slot), self.app_dir.socket(slot)
            self.units.wait_stopped(self.socket(slot), service)  # it may still finish
            pending = self.begin(slot, "switch")
            self.assign_slot(slot, self.id, self.set)
            self.units.start(self.socket(slot), service)
            timeout = self.proof.get("timeout", 30)
            answer = self.watch.wait_healthy("Start the release", service, socket_path, timeout)
            self.watch.remember(service, workers=True)
            visits = (socket_path, self.proof.get("warm_up", []))
            visits += (VISITORS * len(self.watch.workers[service]),)
            visitors = Thread(target=self.watch.health.warm, args=visits, daemon=True)
            visitors.start()
            length = self.proof.get("watch", 1)
            step = "Watch the release"
            self.watch.stay_healthy(
                step, [service], service, socket_path, length, visitors=visitors
            )
        except DeployError as error:
            self.fail(error, pending)
        return self.serving() | {"answer": answer, "slot": slot}

    def switch(self) -> dict[str, Any]:
        """Switch traffic and background processes to the started release.

        With strategy `restart`, replace the active release in its slot, while requests wait in the
        socket. On failure, roll back.
        """
        pending: dict[str, Any] = {}
        try:
            if self.strategy == "restart":
                self.prepare()
                pending = self.begin(self.app_dir.live() or "a", "restart")
                self.restart_in_place(pending)
            else:
                pending = self.started()
                self.commit(pending)
            self.restart_processes(pending)
        except DeployError as error:
            self.fail(error, pending)
        self.finish(pending)
        removed = self.app_dir.prune(self.proof.get("keep", 5))
        last = {
            path.name: self.app_dir.settings_of(path.name) for path in self.app_dir.newest_first()
        }
        self.settings.prune({*last.values(), pending["serving_settings"]})
        before = {"previous": pending["serving"], "previous_settings": pending["serving_settings"]}
        return self.serving() | before | {"removed": removed}

    def undo(self, switched: dict[str, Any]) -> dict[str, Any]:
        """Undo the change. Where it had `switched`, activate the previous release again.

        `switched` is the result of `switch`, empty if it did not run.
        """
        self.recover()
        if switched.get("previous") and self.app_dir.serving() == self.id:
            back = {"app": self.app_dir.app, "root": str(self.app_dir.root), "action": "rollback"}
            back |= {"release": switched["previous"], "by": self.about["by"]}
            before = switched["previous_settings"]
            back["settings"] = before if self.settings.there(before) else self.settings.current()
            change = Change(back, self.units)
            change.start()
            change.switch()
        self.app_dir.discard(self.id)
        return self.serving()

    def serving(self) -> dict[str, Any]:
        """Return the active release and its settings."""
        return {"current": self.app_dir.serving(), "settings": self.settings.current()}

    # Helpers of the steps.

    def prepare(self) -> None:
        """Recover an interrupted change, and check that release and settings are installed."""
        self.recover(keep=self.id)
        if not (self.app_dir.releases / self.id).is_dir():
            raise DeployError("Find the release", f"{self.id} is not on this host")
        if not self.settings.there(self.set):
            raise DeployError("Find the settings", f"{self.set or 'none'} is not on this host")

    def begin(self, slot: str, strategy: str) -> dict[str, Any]:
        """Record the state before and after the change. Return the record."""
        app_dir, live = self.app_dir, self.app_dir.live()
        pending = {
            "id": self.id,
            "settings": self.set,
            "slot": slot,
            "live": live,
            "serving": app_dir.serving(),
            "serving_settings": self.settings.in_slot(live),
            "previous": app_dir.previous(),
            "strategy": strategy,
            **self.about,
        }
        app_dir.begin_change(**pending)
        return pending

    def started(self) -> dict[str, Any]:
        """Return the record of the change that started the release."""
        pending = self.app_dir.pending()
        started = (self.app_dir.release_in(pending.get("slot", "")), pending.get("settings"))
        if started != (self.id, self.set):
            raise DeployError("Switch to the release", "it is not started on this host")
        return pending

    def assign_slot(self, slot: str, release: str, settings: str) -> None:
        """Assign a release with its settings to a slot."""
        changed = self.settings.assign_slot(slot, settings)
        self.app_dir.assign_slot(slot, release)
        if changed:
            self.units.reload()

    def restart_in_place(self, pending: dict[str, Any]) -> None:
        """Restart the app in its slot, behind its socket."""
        socket, service = self.socket(pending["slot"]), self.service(pending["slot"])
        self.assign_slot(pending["slot"], self.id, self.set)
        self.commit(pending)
        self.units.start(socket)
        self.units.restart(service)
        self.watch.wait_started("Start the release", [service])
        socket_path, timeout = self.app_dir.socket(pending["slot"]), self.proof.get("timeout", 30)
        self.watch.wait_healthy("Start the release", service, socket_path, timeout)

    def commit(self, pending: dict[str, Any]) -> None:
        """Switch all links and settings to the new release. Services restart later.

        Requests switch last: a change interrupted before that is rolled back, otherwise completed.
        """
        self.stop_undeclared(pending["settings"])
        if changed := self.settings.use(pending["settings"]):
            self.units.reload()
            declared = self.processes(pending["settings"])[1]
            self.units.restart(*(unit for unit in changed if unit in declared))
        self.switch_links(pending)

    def switch_links(self, pending: dict[str, Any]) -> None:
        """Point all links to the new release."""
        again = pending["serving"] == pending["id"]
        self.app_dir.activate(
            pending["slot"], pending["id"], pending["previous" if again else "serving"]
        )

    def stop_undeclared(self, settings: str) -> None:
        """Stop background processes that a set of settings does not declare, timers first."""
        services, timers = self.processes(settings)
        declared = {*services, *timers, *(started_by(timer) for timer in timers)}
        running = self.units.processes(self.app_dir.app) - declared
        self.units.stop(*(unit for unit in running if unit.endswith(".timer")))
        self.units.stop(*(unit for unit in running if not unit.endswith(".timer")))

    def restart_processes(self, pending: dict[str, Any]) -> None:
        """Restart outdated background processes, and watch all processes."""
        slot, watch = pending["slot"], self.watch
        service, socket_path = self.service(slot), self.app_dir.socket(slot)
        services, timers = self.processes(self.set)
        watch.remember(service, workers=True)
        self.units.start(*timers, *services)
        self.units.restart(*self.outdated(pending, services))
        watch.wait_started("Restart the background processes", services)
        watch.remember(*services)
        length = self.proof.get("watch", 1)
        watch.stay_healthy(
            "Watch the release", [service, *services], service, socket_path, length, services
        )

    def outdated(self, pending: dict[str, Any], services: list[str]) -> list[str]:
        """Return the services that run with a previous release, environment or unit."""
        changed = self.settings.changed(pending["serving_settings"], self.set) - {
            "gunicorn.conf.py"
        }
        same = pending["serving"] == self.id and all(path.startswith("units/") for path in changed)
        if not same or pending["action"] in ("restart", "rollback"):
            return services
        return [unit for unit in services if f"units/{file_of(unit)}" in changed]

    def rollback(self, pending: dict[str, Any], keep: str = "") -> None:
        """Roll back a failed change; keep release `keep`."""
        old, new, app_dir = pending["live"], pending["slot"], self.app_dir
        services, timers = self.processes(pending["serving_settings"])
        now = (app_dir.live(), app_dir.current(), self.settings.current())
        moved = now != (old, pending["serving"], pending["serving_settings"])
        if not old:  # first release: its sockets would activate their services
            started = [unit for units in self.processes(pending["settings"]) for unit in units]
            self.units.kill(self.socket(new), self.service(new), *started)
        self.stop_undeclared(pending["serving_settings"])
        self.restore(pending)
        if moved:
            self.units.restart(*timers)
        if not old:
            pass
        elif old == new:
            self.restart_units(self.service(old), *services)
            self.wait_healthy(old, pending["serving_settings"])
        elif moved:  # the new instance may hold requests
            self.restart_units(*services)
            self.drain(new)
            self.units.wait_stopped(self.socket(new), self.service(new))
        else:
            self.units.kill(self.socket(new), self.service(new))
        if old != new:
            self.clear_slot(new)
        if pending["id"] != keep:
            app_dir.discard(pending["id"])
        app_dir.end_change()

    def restore(self, pending: dict[str, Any]) -> None:
        """Restore links and unit files of the previous state; start and stop nothing."""
        old, settings = pending["live"], pending["serving_settings"]
        if old == pending["slot"]:
            self.assign_slot(old, pending["serving"], settings)
        if self.settings.use(settings):
            self.units.reload()
        self.app_dir.activate(old, pending["serving"], pending["previous"] if old else "")

    def restart_units(self, *units: str) -> None:
        """Restart units of the old release. Their failures are left to their own journal."""
        self.units.restart(*units)
        with suppress(DeployError):
            Watch(self.units, self.watch.health).wait_started("Go back", list(units))

    def wait_healthy(self, slot: str, settings: str) -> None:
        """Wait until the old release answers, so that it can be reported as active."""
        proof = self.settings.release(settings)
        service, socket_path = self.service(slot), self.app_dir.socket(slot)
        with suppress(DeployError):
            self.watcher(proof).wait_healthy(
                "Go back", service, socket_path, proof.get("timeout", 30)
            )

    def drain(self, slot: str, looks: int = 3) -> None:
        """Stop an instance after its socket queue was empty in `looks` consecutive checks."""
        units, path = [self.socket(slot), self.service(slot)], self.app_dir.socket(slot)
        empty, deadline = 0, time.monotonic() + self.units.stop_timeout(*units)
        while empty < looks and time.monotonic() < deadline:
            empty = 0 if self.units.queue(path) else empty + 1
            time.sleep(0.05)
        self.units.systemctl("stop", *units)
        self.clear_slot(slot)

    def clear_slot(self, slot: str) -> None:
        """Mark a slot as unused."""
        self.app_dir.assign_slot(slot, "")
        self.settings.assign_slot(slot, "")

    def finish(self, pending: dict[str, Any]) -> None:
        """Drain the old instance and record the deploy."""
        self.app_dir.begin_change(**pending | {"done": True})
        if pending["live"] not in ("", pending["slot"]):
            # After a watch of a second, no request is still on its way to the old socket.
            self.drain(pending["live"], looks=1 if self.proof.get("watch", 1) >= 1 else 3)
        self.app_dir.record(pending)
        target = f"{self.app_dir.app}.target"
        self.units.enable(target)
        if not pending["live"]:  # in later deploys it would restart units that are stopping
            self.units.start(target)
        self.app_dir.end_change()

    def interrupted(self) -> dict[str, Any]:
        """Return the record of an interrupted change; empty when there is none.

        Fields missing from it, as in an unreadable record, come from the live slot.
        """
        app_dir, live = self.app_dir, self.app_dir.live()
        now = {"live": live, "slot": app_dir.free(), "serving": app_dir.serving(), **self.about}
        now |= {"strategy": "switch", "previous": app_dir.previous()}
        now |= dict.fromkeys(("settings", "serving_settings"), self.settings.in_slot(live))
        pending = app_dir.pending()
        return now | pending if pending else {}

    def recover(self, keep: str = "") -> None:
        """Recover an interrupted change: complete it if it had switched, else roll back."""
        if pending := self.interrupted():
            self.units.reload()  # the change may have been interrupted before its reload
            if committed(pending, self.app_dir):
                self.commit(pending)
                self.units.restart(*self.processes(pending["settings"])[0])
                self.finish(pending)
            else:
                self.rollback(pending, keep)
            services, timers = self.processes(self.settings.current())
            self.units.start(*services)
            self.units.restart(*timers)
        for slot in set(SLOTS) - {self.app_dir.live()}:
            units = [self.socket(slot), self.service(slot)]
            states = {said["ActiveState"] for said in self.units.show(units).values()}
            if self.app_dir.release_in(slot) or states & {"active", "activating"}:
                self.drain(slot)

    def recover_at_boot(self) -> None:
        """Recover a change interrupted by a power cut, before units start: files and links only."""
        pending = self.interrupted()
        if not pending:
            return
        if committed(pending, self.app_dir):  # its links and files came first
            self.app_dir.record(pending)
        else:
            self.restore(pending)
        for slot in set(SLOTS) - {self.app_dir.live()}:
            self.clear_slot(slot)
        self.units.reload()
        self.app_dir.end_change()

    def fail(self, error: DeployError, pending: dict[str, Any]) -> None:
        """Roll back, and raise an error that explains why the release was not activated."""
        failed = time.time()
        with suppress(DeployError):  # the next deploy cleans up the rest
            if pending:
                self.rollback(pending)  # first, as after a restart no release serves until then
        journal = self.units.journal(error.unit, self.began, failed) if error.unit else []
        lines = [f'{self.id} was not activated: it failed at "{error.step}": {error}.']
        lines += [error.answer] if error.answer else []
        why = decisive(journal)
        lines += [f"From the journal of {error.unit}:", *why] if why else []
        hint = advice("\n".join([error.answer, *journal]))
        lines += [hint] if hint else []
        raise DeployError(error.step, "\n".join(lines), error.unit, error.answer) from error


def committed(pending: dict[str, Any], app_dir: AppDir) -> bool:
    """Return whether an interrupted change had already switched traffic."""
    switched = pending["strategy"] == "switch" and pending["slot"] == app_dir.live()
    return switched or pending.get("done", False)


def file_of(unit: str) -> str:
    """Return the file name of a service; for an instance, its template's."""
    return re.sub(r"@[^@]*\.service$", "@.service", unit)


def started_by(timer: str) -> str:
    """Return the service that a timer starts."""
    return timer.removesuffix(".timer") + ".service"
