"""A lease: the right of one process to do a task exclusively, for a limited time.

The lease is a row in MySQL that is changed by one conditional UPDATE with the server's clock. Lease
and tick are written in one transaction, so a process that was paused past its lease cannot tick.
GET_LOCK would last as long as its connection, which for a host that lost power is hours.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, or_, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session as DbSession
from sqlalchemy.sql.expression import FunctionElement

from sample_app.models import Lease


class now_ms(FunctionElement[int]):
    """The database server's clock in Unix milliseconds."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms)
def _mysql_now(element: Any, compiler: Any, **kwargs: Any) -> str:
    return "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"


@compiles(now_ms, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **kwargs: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def read(session: DbSession, name: str, ttl: float) -> tuple[str, int, int]:
    """Return the holder (or ""), the milliseconds that it has left, and the server's time."""
    holder, expires, now = session.execute(
        select(Lease.holder, Lease.expires_ms, now_ms()).where(Lease.name == name)
    ).one()
    if now < expires <= now + _longest(ttl):
        return holder, expires - now, now
    return "", 0, now


def _longest(ttl: float) -> int:
    """Return the most milliseconds a lease can have left; if more, the clock was set back."""
    return int(ttl * 2000)


def acquire(session: DbSession, name: str, holder: str, ttl: float) -> bool:
    """Acquire or renew the lease for `ttl` seconds; return False when another process holds it.

    The row stays locked until the transaction ends.
    """
    result = session.execute(
        update(Lease)
        .where(
            Lease.name == name,
            or_(
                Lease.holder == holder,
                Lease.expires_ms <= now_ms(),
                Lease.expires_ms > now_ms() + _longest(ttl),
            ),
        )
        .values(holder=holder, expires_ms=now_ms() + int(ttl * 1000))
        .execution_options(synchronize_session=False)
    )
    return bool(result.rowcount == 1)


def release(session: DbSession, name: str, holder: str) -> None:
    """Release the lease, so that another process can acquire it immediately."""
    session.execute(
        update(Lease)
        .where(Lease.name == name, Lease.holder == holder)
        .values(holder="", expires_ms=0)
        .execution_options(synchronize_session=False)
    )
