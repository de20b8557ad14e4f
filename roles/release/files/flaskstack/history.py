"""What a host, or a fleet, may go back to, from what its hosts say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

State = Mapping[str, Any]  # as the call `look` returns it


def rollback_settings(state: State, release: str) -> str:
    """Return the settings that a release of before is put in use with again.

    Those that it served with last; of the one that serves, those before the present ones. Where
    they are not on the host any more, such as after a rotation of secrets, the present ones.
    """
    present = (state["current"], state["settings"])
    found = [
        entry.get("settings", "")
        for entry in state["history"]
        if entry["release"] == release and (release, entry.get("settings")) != present
    ]
    known = [name for name in found if name in state["sets"]]
    return known[-1] if known else state["settings"]


def rollback_target(states: Mapping[str, State]) -> str:
    """Return the release that the fleet served before; empty when there is none.

    Where a rollout stopped half way, that is the release it was to replace; where a rollback did,
    the one it was to. A rollback is no step forward: after one, the next goes further back. Where
    only settings changed, it is the release that serves: see `rollback_settings`.
    """
    serving = {state["current"] for state in states.values()}
    histories = sorted((state["history"] for state in states.values()), key=_last, reverse=True)
    latest = histories[0][-1] if histories and histories[0] else {}
    if len(serving) > 1 and latest.get("action") == "rollback":
        return latest["release"]
    for history in histories:
        before, settings = _before(history)
        if before and (serving != {before} or settings != history[-1].get("settings", "")):
            return before
    return ""


def _last(history: list[Mapping[str, str]]) -> str:
    return history[-1]["time"] if history else ""


def _before(history: list[Mapping[str, str]]) -> tuple[str, str]:
    """Return what a host served before what it serves now, without what was taken back.

    That is a release and its settings; both are empty when there is none.
    """
    served: list[tuple[str, str]] = []
    for entry in history:
        now = (entry["release"], entry.get("settings", ""))
        previous = (entry.get("previous", ""), entry.get("previous_settings", ""))
        if previous[0] and (not served or served[-1] != previous):
            served.append(previous)  # the history was cut, or something else was started by hand
        if entry.get("action") == "rollback" and now in served:
            del served[len(served) - 1 - served[::-1].index(now) :]
        if served[-1:] != [now]:
            served.append(now)
    return served[-2] if len(served) > 1 else ("", "")


def table(rows: list[list[str]]) -> str:
    """Return rows of text in columns; the first names them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
