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

WARM_UP_CLIENTS = 4  # per worker, so that each worker gets some requests
NO_HEALTH = {"path": "/", "headers": {}, "status": 200, "body": ""}
START, WATCH, ROLL_BACK = "Start the release", "Watch the release", "Roll back"


class Change:
    """Switch an app on one host to a release with a set of settings."""

    def __init__(self, params: dict[str, Any], units: Units | None = None) -> None:
        """Take `app`, `root`, `release` (its id) and `settings` (name of a set).

        Optional: `commit`, `by` (user), `action` (deploy, rollback, restart, rotation).
        """
        self.app_dir = AppDir(params["root"], params["app"])
        self.settings = Settings(params["app"])
        self.units = units or Units()
        self.id, self.set = params.get("release", ""), params.get("settings", "")
        self.metadata = {"commit": params.get("commit", ""), "by": params.get("by", "")}
        self.metadata["action"] = params.get("action", "deploy")
        self.config = self.settings.release(self.set)
        self.watch = self.watch_of(self.config)
        self.created = time.time()

    def watch_of(self, config: dict[str, Any]) -> Watch:
        """Return the watch of an instance, as configured by its settings."""
        health = Health(**config.get("health", NO_HEALTH))
        return Watch(self.units, health, config.get("timeout", 30))

    @property
    def strategy(self) -> str:
        """Return the strategy: `switch`, or `restart` where memory is scarce."""
        return self.config.get("strategy", "switch")

    def socket(self, slot: str) -> str:
        """Return a slot's socket unit."""
        return f"{self.app_dir.app}-web@{slot}.socket"

    def service(self, slot: str) -> str:
        """Return a slot's service."""
        return f"{self.app_dir.app}-web@{slot}.service"

    def processes(self, name: str) -> tuple[list[str], list[str]]:
        """Return the services and the timers of a set of settings."""
        config = self.settings.release(name)
        return config.get("services", []), config.get("timers", [])

    # Steps of a change.

    def start(self) -> dict[str, Any]:
        """Start the release beside the active one and check it. The active one is not touched."""
        pending: dict[str, Any] = {}
        try:
            self.prepare()
            if self.strategy == "restart":  # `switch` starts the release
                return self.active()
            slot = self.app_dir.free()
            service, socket_path = self.service(slot), self.app_dir.socket(slot)
            self.units.wait_stopped(self.socket(slot), service)  # those of an older release
            pending = self.begin(slot, "switch")
            self.assign_slot(slot, self.id, self.set)
            self.units.start(self.socket(slot), service)
            answer = self.watch.wait_healthy(START, service, socket_path)
            self.watch.remember(service, workers=True)
            clients = WARM_UP_CLIENTS * len(self.watch.workers[service])
            params = (socket_path, self.config.get("warm_up", []), clients)
            warm_up = Thread(target=self.watch.health.warm_up, args=params, daemon=True)
            warm_up.start()
            length = self.config.get("watch", 1)
            self.watch.stay_healthy(WATCH, [service], service, socket_path, length, warm_up=warm_up)
        except DeployError as error:
            self.fail(error, pending)
        return self.active() | {"answer": answer, "slot": slot}

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
        removed = self.app_dir.prune(self.config.get("keep", 5))
        last = {self.app_dir.settings_of(path.name) for path in self.app_dir.newest_first()}
        self.settings.prune(last | {pending["serving_settings"]})
        return self.active() | {
            "previous": pending["serving"],
            "previous_settings": pending["serving_settings"],
            "removed": removed,
        }

    def undo(self, switched: dict[str, Any]) -> dict[str, Any]:
        """Undo the change. Where it had `switched`, activate the previous release again.

        `switched` is the result of `switch`, empty if it did not run.
        """
        self.recover()
        if switched.get("previous") and self.app_dir.serving() == self.id:
            settings = switched["previous_settings"]
            rollback = {
                "app": self.app_dir.app,
                "root": str(self.app_dir.root),
                "release": switched["previous"],
                "settings": settings if self.settings.exists(settings) else self.settings.current(),
                "by": self.metadata["by"],
                "action": "rollback",
            }
            change = Change(rollback, self.units)
            change.start()
            change.switch()
        self.app_dir.discard(self.id)
        return self.active()

    def active(self) -> dict[str, Any]:
        """Return the active release and its settings."""
        return {"current": self.app_dir.serving(), "settings": self.settings.current()}

    # Helpers of the steps.

    def prepare(self) -> None:
        """Recover an interrupted change, and check that release and settings are installed."""
        self.recover(keep=self.id)
        if not (self.app_dir.releases / self.id).is_dir():
            raise DeployError("Find the release", f"{self.id} is not on this host")
        if not self.settings.exists(self.set):
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
            **self.metadata,
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
        slot = pending["slot"]
        self.assign_slot(slot, self.id, self.set)
        self.commit(pending)
        self.units.start(self.socket(slot))
        self.units.restart(self.service(slot))
        self.watch.wait_started(START, [self.service(slot)])
        self.watch.wait_healthy(START, self.service(slot), self.app_dir.socket(slot))

    def commit(self, pending: dict[str, Any]) -> None:
        """Switch all links and settings to the new release. Services restart later.

        The link for requests is last. A change interrupted before it is rolled back; a change
        interrupted after it is completed.
        """
        self.stop_undeclared(pending["settings"])
        if changed := self.settings.use(pending["settings"]):
            self.units.reload()
            timers = self.processes(pending["settings"])[1]
            self.units.restart(*(unit for unit in changed if unit in timers))
        same = pending["serving"] == pending["id"]
        previous = pending["previous" if same else "serving"]
        self.app_dir.activate(pending["slot"], pending["id"], previous)

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
        length = self.config.get("watch", 1)
        watch.stay_healthy(WATCH, [service, *services], service, socket_path, length, services)

    def outdated(self, pending: dict[str, Any], services: list[str]) -> list[str]:
        """Return the services that run with a previous release, environment or unit."""
        changed = self.settings.changed(pending["serving_settings"], self.set)
        changed -= {"gunicorn.conf.py"}
        same = pending["serving"] == self.id and all(path.startswith("units/") for path in changed)
        if not same or pending["action"] in ("restart", "rollback"):
            return services
        return [unit for unit in services if f"units/{file_of(unit)}" in changed]

    def rollback(self, pending: dict[str, Any], keep: str = "") -> None:
        """Roll back a failed change and discard its release, unless it is `keep`."""
        old, new, app_dir = pending["live"], pending["slot"], self.app_dir
        services, timers = self.processes(pending["serving_settings"])
        active = (app_dir.live(), app_dir.current(), self.settings.current())
        moved = active != (old, pending["serving"], pending["serving_settings"])
        if not old:  # first release: its sockets would activate their services
            started = [unit for units in self.processes(pending["settings"]) for unit in units]
            self.units.kill(self.socket(new), self.service(new), *started)
        self.stop_undeclared(pending["serving_settings"])
        self.restore(pending)
        if moved:
            self.units.restart(*timers)
        if old and old == new:
            self.restart_units(self.service(old), *services)
            self.wait_healthy(old, pending["serving_settings"])
        elif old and moved:  # the new instance may hold requests
            self.restart_units(*services)
            self.drain(new)
            self.units.wait_stopped(self.socket(new), self.service(new))
        elif old:
            self.units.kill(self.socket(new), self.service(new))
        if old != new:
            self.clear_slot(new)
        if pending["id"] != keep:
            app_dir.discard(pending["id"])
        app_dir.end_change()

    def restore(self, pending: dict[str, Any]) -> None:
        """Restore links and unit files of the previous state, but start and stop no units."""
        old, settings = pending["live"], pending["serving_settings"]
        if old == pending["slot"]:
            self.assign_slot(old, pending["serving"], settings)
        if self.settings.use(settings):
            self.units.reload()
        self.app_dir.activate(old, pending["serving"], pending["previous"] if old else "")

    def restart_units(self, *units: str) -> None:
        """Restart units of the previous release. Ignore failures, which are in their journal."""
        self.units.restart(*units)
        with suppress(DeployError):
            Watch(self.units, self.watch.health).wait_started(ROLL_BACK, units)

    def wait_healthy(self, slot: str, settings: str) -> None:
        """Wait until the previous release answers, so that it can be reported as active."""
        watch = self.watch_of(self.settings.release(settings))
        with suppress(DeployError):
            watch.wait_healthy(ROLL_BACK, self.service(slot), self.app_dir.socket(slot))

    def drain(self, slot: str) -> None:
        """Stop an instance after its socket queue was empty in three consecutive checks."""
        units, path = [self.socket(slot), self.service(slot)], self.app_dir.socket(slot)
        empty, deadline = 0, time.monotonic() + self.units.stop_timeout(*units)
        while empty < 3 and time.monotonic() < deadline:
            empty = 0 if self.units.queue(path) else empty + 1
            time.sleep(0.05)
        self.units.systemctl("stop", *units)
        self.clear_slot(slot)

    def clear_slot(self, slot: str) -> None:
        """Mark a slot as unused."""
        self.app_dir.assign_slot(slot, "")
        self.settings.assign_slot(slot, "")

    def finish(self, pending: dict[str, Any]) -> None:
        """Drain the previous instance and record the deploy."""
        self.app_dir.begin_change(**pending | {"done": True})
        if pending["live"] not in ("", pending["slot"]):
            self.drain(pending["live"])
        self.app_dir.record(pending)
        target = f"{self.app_dir.app}.target"
        self.units.enable(target)
        if not pending["live"]:  # in later deploys it would restart units that are stopping
            self.units.start(target)
        self.app_dir.end_change()

    def recover(self, keep: str = "") -> None:
        """Recover an interrupted change: complete it if it had switched, else roll back."""
        if pending := self.app_dir.pending():
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
            states = {unit["ActiveState"] for unit in self.units.show(units).values()}
            if self.app_dir.release_in(slot) or states & {"active", "activating"}:
                self.drain(slot)

    def recover_at_boot(self) -> None:
        """Recover a change interrupted by a power cut. At boot, only files and links change."""
        pending = self.app_dir.pending()
        if not pending:
            return
        if committed(pending, self.app_dir):  # then all links and files are in place
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
                self.rollback(pending)  # first, since possibly no release is active
        journal = self.units.journal(error.unit, self.created, failed) if error.unit else []
        reason = decisive(journal)
        lines = [
            f'{self.id} was not activated: it failed at "{error.step}": {error}.',
            error.answer,
            *([f"From the journal of {error.unit}:", *reason] if reason else []),
            advice("\n".join([error.answer, *journal])),
        ]
        text = "\n".join(filter(None, lines))
        raise DeployError(error.step, text, error.unit, error.answer) from error


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
