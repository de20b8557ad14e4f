"""Binary logs of MySQL and MariaDB: where a moment is in them."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Types of events in a binary log that belong to no transaction: STOP, ROTATE, FORMAT_DESCRIPTION,
# HEARTBEAT, PREVIOUS_GTIDS, and MariaDB's BINLOG_CHECKPOINT, GTID_LIST and START_ENCRYPTION.
NO_TRANSACTION = {3, 4, 15, 27, 35, 161, 163, 164}
QUERY, XID, GTID_MYSQL, GTID_ANONYMOUS, GTID_MARIADB = 2, 16, 33, 34, 162
EVENT_HEADER = struct.Struct("<IBIIIH")  # time, type, server, length, next position, flags


def cut(logs: list[Path], position: int, moment: float | None) -> dict[str, Any]:
    """Truncate copies of binary logs before the first transaction of a moment, or a partial one.

    Replay begins at `position` in the first log. A transaction is of a moment if any of its events
    is. Return the last transaction that stays: its ID, time, log and position.
    """
    last: dict[str, Any] = {"transaction": "", "time": 0, "log": logs[0].name, "position": position}
    for number, path in enumerate(logs):
        done = _scan(path, position if number == 0 else 4, moment)
        last |= done.last
        if done.end is not None:
            os.truncate(path, done.end)
            if done.stopped:
                for later in logs[number + 1 :]:
                    later.unlink()
                del logs[number + 1 :]
                break
    return last


def _scan(path: Path, start: int, moment: float | None) -> Any:
    """Return where to truncate a log (None: nowhere), whether to stop there, and the last ID."""
    last: dict[str, Any] = {}
    pending: dict[str, Any] = {}
    begin, offset, size = start, start, path.stat().st_size
    with path.open("rb") as file:
        while offset + EVENT_HEADER.size <= size:
            file.seek(offset)
            at, kind, server, length, _, _ = EVENT_HEADER.unpack(file.read(EVENT_HEADER.size))
            if length < EVENT_HEADER.size or offset + length > size:
                break  # half written when it was copied
            is_begin = kind in (GTID_MYSQL, GTID_ANONYMOUS, GTID_MARIADB)
            if (is_begin or kind in NO_TRANSACTION) and pending:
                last, pending = pending, {}
            if is_begin or kind in NO_TRANSACTION:
                begin = offset
            if kind not in NO_TRANSACTION:
                if moment is not None and at >= moment:
                    return SimpleNamespace(end=begin, stopped=True, last=last)
                if is_begin:
                    body = file.read(min(length - EVENT_HEADER.size, 64))
                    pending = {"transaction": _transaction(kind, server, body)}
                pending |= {"time": at, "log": path.name, "position": offset + length}
            offset += length
    # The last log of a running server may end within a transaction.
    if pending and _is_complete(path, begin, offset):
        last, begin = pending, offset
    if not pending:
        begin = offset
    return SimpleNamespace(end=begin if begin < size else None, stopped=False, last=last)


def _is_complete(path: Path, begin: int, end: int) -> bool:
    """Return whether the transaction at `begin` ends at `end`: with an XID, COMMIT or DDL."""
    with path.open("rb") as file:
        while begin < end:
            file.seek(begin)
            _, kind, _, length, _, _ = EVENT_HEADER.unpack(file.read(EVENT_HEADER.size))
            body = file.read(length - EVENT_HEADER.size) if kind == QUERY else b""
            begin += length
    return kind == XID or (kind == QUERY and b"BEGIN" not in body[-12:])


def _transaction(kind: int, server: int, body: bytes) -> str:
    if kind == GTID_MARIADB:
        sequence, domain = struct.unpack_from("<QI", body)
        return f"{domain}-{server}-{sequence}"
    if kind == GTID_MYSQL:
        return f"{body[1:17].hex()}:{struct.unpack_from('<Q', body, 17)[0]}"
    return ""


def log_created(path: Path) -> int:
    """Return when a binary log was created, in seconds since 1970."""
    with path.open("rb") as file:
        file.seek(4)
        return EVENT_HEADER.unpack(file.read(EVENT_HEADER.size))[0]


def log_names(first: str, last: str) -> list[str]:
    """Return the names of the binary logs from one to another."""
    name, start = first.rsplit(".", 1)
    return [f"{name}.{number:06d}" for number in range(int(start), int(last.rsplit(".", 1)[1]) + 1)]
