"""Place the processes that run on only one host of the fleet.

A marker file outside the sets of settings enables them, so no deploy or rollback moves them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flaskstack.change import started_by
from flaskstack.errors import ValidationError
from flaskstack.files import write
from flaskstack.settings import STAMPS, Settings
from flaskstack.units import Units


def place(params: dict[str, Any]) -> dict[str, Any]:
    """Start the singletons on this host (`here`), or stop them because they run on another.

    `units` has the inventory's singletons; those of the active settings are added. Returns `moves`:
    whether anything moved. With `check` nothing changes. Raises ValidationError if a scheduled run
    is still in progress here.
    """
    settings, units = Settings(params["app"]), Units()
    declared = settings.release(settings.current()).get("singletons", [])
    singletons = sorted({*params["units"], *declared})
    change, was_here = not params.get("check"), settings.marker.exists()
    if params["here"]:
        if change and not was_here:
            write(settings.marker, "")
            units.start(*declared)
        return {"changed": not was_here, "moves": not was_here}
    timers = [unit for unit in singletons if unit.endswith(".timer")]
    running = active(units, singletons)
    if change and running:
        units.stop(*timers)
    if busy := active(units, map(started_by, timers)):
        if change:
            units.start(*set(timers) & set(running))
        raise ValidationError(
            f"{' and '.join(busy)} still runs here, but belongs to another host now "
            "(app_singleton_host). Nothing was moved. Run this again when it has ended"
        )
    if change:
        settings.marker.unlink(missing_ok=True)
        units.stop(*running)
        for timer in timers:  # otherwise, a later move back would catch up on runs of another host
            (STAMPS / f"stamp-{timer}").unlink(missing_ok=True)
    moves = was_here or bool(running)
    return {"changed": moves, "moves": moves}


def active(units: Units, names: Iterable[str]) -> list[str]:
    """Return the units that are neither stopped nor failed."""
    states = {name: unit["ActiveState"] for name, unit in units.show(names).items()}
    return [name for name, state in states.items() if state not in ("inactive", "failed")]
