"""The tables: notes, runs of diagnostic jobs, and scheduler ticks. Times are naive UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Index, Integer, MetaData, String
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Moment = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
BigId = BigInteger().with_variant(Integer, "sqlite")
INNODB = {"mysql_engine": "InnoDB"}


def utcnow() -> datetime:
    """Return the current time as MySQL stores it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """Gives every index and constraint a name that migrations can use."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
        }
    )


class Note(Base):
    """One entry of the guest book. A background job counts its words."""

    __tablename__ = "notes"
    __table_args__ = (Index(None, "word_count", "queued_at"), INNODB)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    token: Mapped[str] = mapped_column(String(32), unique=True)  # makes the insert idempotent
    author: Mapped[str] = mapped_column(String(60))
    body: Mapped[str] = mapped_column(String(1000))
    created_at: Mapped[datetime] = mapped_column(Moment, default=utcnow)
    request_id: Mapped[str | None] = mapped_column(String(64))
    queued_at: Mapped[datetime | None] = mapped_column(Moment)  # null: the queue was unavailable
    word_count: Mapped[int | None]
    counted_by: Mapped[str | None] = mapped_column(String(320))


class Run(Base):
    """One run of a diagnostic job. Tests check that no job has two rows, as if it had run twice."""

    __tablename__ = "runs"
    __table_args__ = INNODB

    token: Mapped[str] = mapped_column(String(32), primary_key=True)
    job: Mapped[str] = mapped_column(String(80), index=True)
    queued_by: Mapped[str] = mapped_column(String(64))  # release
    queued_at: Mapped[datetime] = mapped_column(Moment)
    ran_by: Mapped[str] = mapped_column(String(64))  # release
    started_at: Mapped[datetime] = mapped_column(Moment, index=True)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)
    failed: Mapped[bool | None]
    worker: Mapped[str] = mapped_column(String(320))
    connection: Mapped[int] = mapped_column(BigInteger)  # id on the server


class Tick(Base):
    """One tick of the scheduler. The primary key prevents a second tick in the same slot."""

    __tablename__ = "ticks"
    __table_args__ = INNODB

    slot: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)  # Unix seconds
    ticked_at: Mapped[datetime] = mapped_column(Moment)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
