"""A lease: one process of many may do a thing, for a bounded time.

It is a row in MySQL, changed by one conditional UPDATE with the server's clock. MySQL rather than
Redis because the ticks are rows too: lease and tick are written in one transaction, so a holder
that was paused past its time cannot tick. A row rather than GET_LOCK because that lock lasts as
long as its connection, which for a host without power is until MySQL's timeouts.
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


def peek(session: DbSession, name: str, ttl: float) -> tuple[str, int, int]:
    """Return the holder ("" for none), the milliseconds it has left, and the server's time (ms)."""
    row = session.execute(
        select(Lease.holder, Lease.expires_ms, now_ms()).where(Lease.name == name)
    ).one()
    holder, expires, now = row
    return (holder, expires - now, now) if now < expires <= now + longest(ttl) else ("", 0, now)


def longest(ttl: float) -> int:
    """Return the milliseconds that a lease may have left: if more, the clock was set back since."""
    return int(ttl * 2000)


def acquire(session: DbSession, name: str, holder: str, ttl: float) -> bool:
    """Take or renew the lease for `ttl` seconds; False when another holds it.

    The row stays locked until the transaction ends: what is written in it is covered by the lease.
    """
    result = session.execute(
        update(Lease)
        .where(
            Lease.name == name,
            or_(
                Lease.holder == holder,
                Lease.expires_ms <= now_ms(),
                Lease.expires_ms > now_ms() + longest(ttl),
            ),
        )
        .values(holder=holder, expires_ms=now_ms() + int(ttl * 1000))
        .execution_options(synchronize_session=False)
    )
    return bool(result.rowcount == 1)


def release(session: DbSession, name: str, holder: str) -> None:
    """Give the lease up, so that another can take it at once."""
    session.execute(
        update(Lease)
        .where(Lease.name == name, Lease.holder == holder)
        .values(holder="", expires_ms=0)
        .execution_options(synchronize_session=False)
    )
