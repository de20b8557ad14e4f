"""Select rollback targets and settings from the history of hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

State = Mapping[str, Any]  # result of the call `gather`


def rollback_settings(state: State, release: str) -> str:
    """Return the settings with which a rollback activates a release.

    These are the last settings of the release or, for the active release, the settings before the
    current ones. If they are not on the host, such as after a rotation of secrets, return the
    current settings.
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
    """Return the previous release of the fleet; empty when there is none.

    After an incomplete rollout, this is the release that it was replacing; after an incomplete
    rollback, the release it was activating. Repeated rollbacks go further back. If only settings
    changed, this is the active release: see `rollback_settings`.
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
    """Return the previous release of a host and its settings, ignoring deploys rolled back since.

    Both are empty when there is none.
    """
    served: list[tuple[str, str]] = []
    for entry in history:
        now = (entry["release"], entry.get("settings", ""))
        previous = (entry.get("previous", ""), entry.get("previous_settings", ""))
        if previous[0] and (not served or served[-1] != previous):
            served.append(previous)  # the history is truncated, or a release was activated by hand
        if entry.get("action") == "rollback" and now in served:
            del served[len(served) - 1 - served[::-1].index(now) :]
        if served[-1:] != [now]:
            served.append(now)
    return served[-2] if len(served) > 1 else ("", "")


def table(rows: list[list[str]]) -> str:
    """Return rows as an aligned text table; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
