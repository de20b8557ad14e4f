"""The tables: notes, runs of jobs, the scheduler's ticks and lease. Times: UTC without a zone."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import BigInteger, DateTime, Index, Integer, MetaData, String
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Moment = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
BigId = BigInteger().with_variant(Integer, "sqlite")
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
}
INNODB = {"mysql_engine": "InnoDB"}  # charset and collation are the database's


def utcnow() -> datetime:
    """Return the present time in UTC, without a zone as MySQL keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can name it too."""

    metadata = MetaData(naming_convention=NAMING)


class Stamp(StrEnum):
    """How far a note's stamp (its background job) has come."""

    PENDING = "pending"  # in the queue
    WAITING = "waiting"  # the queue was gone: the scheduler queues it later
    DONE = "done"


class Note(Base):
    """One entry of the guest book."""

    __tablename__ = "notes"
    __table_args__ = (Index(None, "stamp", "queued_at"), INNODB)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    token: Mapped[str] = mapped_column(String(32), unique=True)  # makes saving safe to repeat
    author: Mapped[str] = mapped_column(String(60))
    body: Mapped[str] = mapped_column(String(1000))
    created_at: Mapped[datetime] = mapped_column(Moment, default=utcnow)
    request_id: Mapped[str | None] = mapped_column(String(64))
    stamp: Mapped[str] = mapped_column(String(10), default=Stamp.PENDING)
    queued_at: Mapped[datetime] = mapped_column(Moment, default=utcnow)
    words: Mapped[int | None]
    stamped_at: Mapped[datetime | None] = mapped_column(Moment)
    stamped_by: Mapped[str | None] = mapped_column(String(320))


class Run(Base):
    """One run of a batch's job. Nothing keeps a job from having two: that is for a test to find."""

    __tablename__ = "runs"
    __table_args__ = INNODB

    token: Mapped[str] = mapped_column(String(32), primary_key=True)  # safe to repeat
    job: Mapped[str] = mapped_column(String(80), index=True)
    queued_by: Mapped[str] = mapped_column(String(64))  # releases
    queued_at: Mapped[datetime] = mapped_column(Moment)
    ran_by: Mapped[str] = mapped_column(String(64))
    began_at: Mapped[datetime] = mapped_column(Moment, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    worker: Mapped[str] = mapped_column(String(320))


class Tick(Base):
    """One tick of the scheduler. The key makes a second one for the same slot impossible."""

    __tablename__ = "ticks"
    __table_args__ = INNODB

    slot: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)  # Unix seconds
    ticked_at: Mapped[datetime] = mapped_column(Moment)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]


class Lease(Base):
    """Who may do a thing that only one process may do, and until when (Unix milliseconds)."""

    __tablename__ = "leases"
    __table_args__ = INNODB

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(320))
    expires_ms: Mapped[int] = mapped_column(BigInteger)
