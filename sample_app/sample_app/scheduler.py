"""The scheduler: `python -m sample_app.scheduler`, one on each host; the holder of a lease ticks.

A tick belongs to a slot (the time divided by the interval), and the slot is the table's key: even
a fault in the lease could not make two. With each tick the holder also queues the notes whose job
could not be queued when they were written.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as DbSession

from sample_app import config, database, lease, logs, notes, queues, runs
from sample_app.database import Session
from sample_app.models import Tick, utcnow

log = logging.getLogger("sample_app.scheduler")

LEASE = "scheduler"
KEEP_TICKS = 24 * 3600  # seconds
LOOK = 1.0  # seconds between two looks at the lease


class Scheduler:
    """One candidate for the lease, which ticks while it holds it."""

    def __init__(self, interval: float, ttl: float, holder: str | None = None) -> None:
        self.interval = interval
        self.ttl = ttl
        self.host = socket.gethostname()
        self.holder = holder or f"{self.host}:{os.getpid()}:{uuid4().hex[:8]}"
        self.stopping = threading.Event()

    def step(self) -> bool:
        """Look once at the lease and the clock; return True when this process ticked."""
        return database.run(self._step)

    def _step(self, session: DbSession) -> bool:
        holder, left, now = lease.peek(session, LEASE, self.ttl)
        if holder and holder != self.holder:
            return False
        if holder and self.ticked(session) >= self.slot(now) and left > self.ttl * 500:
            return False
        session.rollback()  # a fresh view: what was read above may be old by now
        if not lease.acquire(session, LEASE, self.holder, self.ttl):
            return False
        if not holder:
            log.info("lease taken", extra={"holder": self.holder})
        slot, ticked = self.slot(lease.peek(session, LEASE, self.ttl)[2]), self.ticked(session)
        if ticked > slot + self.interval:  # the clock was set back: these slots come once more
            session.execute(delete(Tick).where(Tick.slot >= slot))
        elif ticked >= slot:
            return False
        session.add(Tick(slot=slot, ticked_at=utcnow(), host=self.host, pid=os.getpid()))
        session.execute(delete(Tick).where(Tick.slot < slot - KEEP_TICKS))
        runs.forget(session)
        return True

    def slot(self, now: int) -> int:
        """Return the slot (Unix seconds) that `now` (Unix milliseconds) lies in."""
        return int(now / 1000 // self.interval * self.interval)

    def ticked(self, session: DbSession) -> int:
        """Return the last slot that had its tick, 0 for none."""
        return session.scalar(select(func.max(Tick.slot))) or 0

    def after_tick(self) -> None:
        """Queue the notes that were saved while the queue was gone."""
        for note_id, request_id in database.run(notes.unqueued, utcnow()):
            with logs.bound(request_id=request_id):
                if not notes.queue_again(note_id, request_id):
                    break

    def run(self) -> None:
        """Tick until asked to stop, through restarts of MySQL and Redis; then release the lease."""
        while not self.stopping.is_set():
            try:
                if self.step():
                    log.info("tick", extra={"holder": self.holder})
                    self.after_tick()
            except SQLAlchemyError as error:
                log.warning("no tick: %s", database.explain(error)[0])
            finally:
                Session.remove()
            self.stopping.wait(min(LOOK, self.interval / 4))
        self._release()

    def _release(self) -> None:
        try:
            database.run(lease.release, LEASE, self.holder)
        except SQLAlchemyError:
            log.warning("lease not released: it ends by itself in %.0f s", self.ttl)
        finally:
            Session.remove()

    def stop(self, *_: Any) -> None:
        """Ask `run` to end (a signal handler)."""
        self.stopping.set()


def main() -> int:
    """Set this process up and tick; return the exit status."""
    settings = config.load()
    logs.configure(settings.release, settings.log_level)
    database.configure(settings)
    queues.configure(settings)
    scheduler = Scheduler(settings.scheduler_interval, settings.scheduler_lease)
    signal.signal(signal.SIGTERM, scheduler.stop)
    signal.signal(signal.SIGINT, scheduler.stop)
    log.info("scheduler started", extra={"holder": scheduler.holder})
    try:
        scheduler.run()
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
