"""The ticket of the deploy that is on its way: a file on one host that another deploy reads."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Ticket = dict[str, Any]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes of this host from looking at the ticket meanwhile."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def read(path: Path) -> Ticket:
    """Return the ticket, empty when nobody holds one that can be read."""
    try:
        ticket = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return ticket if isinstance(ticket, dict) and isinstance(ticket.get("time"), int) else {}


def write(path: Path, ticket: Ticket) -> None:
    """Write the ticket whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(ticket) + "\n")
    partial.chmod(0o644)
    partial.replace(path)


def describe(ticket: Ticket, now: int) -> str:
    """Return who deploys what since when, in words."""
    minutes = max(0, now - ticket["time"]) // 60
    ago = f"{minutes} minutes ago" if minutes > 1 else "just now"
    since = datetime.fromtimestamp(ticket["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{ticket.get('by') or 'somebody'} deploys {ticket.get('release') or 'a release'} "
        f"since {since}, {ago} (process {ticket.get('pid')} there)"
    )
