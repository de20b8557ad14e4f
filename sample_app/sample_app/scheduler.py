"""The scheduler: `python -m sample_app.scheduler` on each host; the one with the lease ticks.

A tick belongs to a slot, which is the time rounded down to the interval and the primary key of the
table. With each tick the scheduler also queues the jobs that could not be queued earlier.
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

from sample_app import config, database, jobs, lease, logs, notes, queues
from sample_app.database import Session
from sample_app.models import Tick, utcnow

log = logging.getLogger("sample_app.scheduler")

LEASE = "scheduler"
TICK_LIFETIME = 24 * 3600  # seconds
POLL_INTERVAL = 1.0  # seconds


class Scheduler:
    """A candidate for the lease, which ticks while it holds it."""

    def __init__(self, interval: float, ttl: float, holder: str | None = None) -> None:
        self.interval = interval
        self.ttl = ttl
        self.host = socket.gethostname()
        self.holder = holder or f"{self.host}:{os.getpid()}:{uuid4().hex[:8]}"
        self.stopping = threading.Event()

    def step(self) -> bool:
        """Check the lease and the clock once; return whether this process ticked."""
        return database.run(self._step)

    def _step(self, session: DbSession) -> bool:
        holder, left, now = lease.read(session, LEASE, self.ttl)
        if holder and holder != self.holder:
            return False
        if holder and self.last_slot(session) >= self.slot(now) and left > self.ttl * 500:
            return False
        session.rollback()  # end the snapshot: another process may have written since
        if not lease.acquire(session, LEASE, self.holder, self.ttl):
            return False
        if not holder:
            log.info("lease acquired", extra={"holder": self.holder})
        slot = self.slot(lease.read(session, LEASE, self.ttl)[2])
        last = self.last_slot(session)
        if last > slot + self.interval:  # the clock was set back: these slots repeat
            session.execute(delete(Tick).where(Tick.slot >= slot))
        elif last >= slot:
            return False
        session.add(Tick(slot=slot, ticked_at=utcnow(), host=self.host, pid=os.getpid()))
        session.execute(delete(Tick).where(Tick.slot < slot - TICK_LIFETIME))
        jobs.delete_old_runs(session)
        return True

    def slot(self, now: int) -> int:
        """Return the slot (Unix seconds) of a time in Unix milliseconds."""
        return int(now / 1000 // self.interval * self.interval)

    def last_slot(self, session: DbSession) -> int:
        """Return the slot of the last tick, or 0."""
        return session.scalar(select(func.max(Tick.slot))) or 0

    def requeue_notes(self) -> None:
        """Queue the jobs of notes that were saved while the queue was unavailable."""
        for note_id, request_id in database.run(notes.without_job, utcnow()):
            with logs.bound(request_id=request_id):
                if not notes.requeue(note_id, request_id):
                    break

    def run(self) -> None:
        """Tick until stopped, even while MySQL or Redis restarts; then release the lease."""
        while not self.stopping.is_set():
            try:
                if self.step():
                    log.info("tick", extra={"holder": self.holder})
                    self.requeue_notes()
            except SQLAlchemyError as error:
                log.warning("no tick: %s", database.explain(error)[0])
            finally:
                Session.remove()
            self.stopping.wait(min(POLL_INTERVAL, self.interval / 4))
        self.release()

    def release(self) -> None:
        """Release the lease."""
        try:
            database.run(lease.release, LEASE, self.holder)
        except SQLAlchemyError:
            log.warning("lease was not released: it expires in %.0f s", self.ttl)
        finally:
            Session.remove()

    def stop(self, *_: Any) -> None:
        """Stop `run` (a signal handler)."""
        self.stopping.set()


def main() -> int:
    """Run the scheduler; return the exit status."""
    settings = config.load()
    logs.configure(settings.release, settings.log_level)
    database.init(settings)
    queues.init(settings)
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
