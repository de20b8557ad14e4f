"""The scheduler: `python -m sample_app.scheduler` on any number of hosts; one of them ticks.

Each interval has a slot: the database server's time, rounded down to the interval. A tick is a row
with the slot as its primary key, so only the first host to insert it ticks. A host that stops or
pauses does not delay the next slot.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session as DbSession

from sample_app import config, database, jobs, logs, notes, queues, watchdog
from sample_app.database import Session
from sample_app.models import Tick, utcnow

log = logging.getLogger("sample_app.scheduler")

TICK_LIFETIME = 24 * 3600  # seconds


def tick(interval: int) -> bool:
    """Tick once per `interval` seconds; return False when the slot is already taken."""
    try:
        return database.run(_take_slot, interval)
    except IntegrityError:  # another host was first
        return False


def _take_slot(session: DbSession, interval: int) -> bool:
    now = session.scalar(select(func.unix_timestamp()))
    slot = now - now % interval
    last = session.scalar(select(func.max(Tick.slot))) or 0
    if slot <= last <= slot + interval:
        return False
    session.add(Tick(slot=slot, ticked_at=utcnow(), host=socket.gethostname(), pid=os.getpid()))
    # Slots in the future were taken before the server's clock was set back.
    outdated = or_(Tick.slot < slot - TICK_LIFETIME, Tick.slot > slot + interval)
    session.execute(delete(Tick).where(outdated))
    jobs.delete_old_runs(session)
    return True


def requeue_notes(overdue: float) -> None:
    """Queue the jobs of notes that were saved while the queue was unavailable, and lost jobs."""
    for note_id, request_id in database.run(notes.without_job, overdue):
        with logs.bound(request_id=request_id):
            if not notes.requeue(note_id, request_id):
                break


def run(interval: int, overdue: float, stopping: threading.Event) -> None:
    """Tick until stopped, even while MySQL or Redis restarts."""
    while not stopping.is_set():
        watchdog.notify()
        try:
            if tick(interval):
                log.info("tick")
                requeue_notes(overdue)
        except SQLAlchemyError as error:
            log.warning("no tick: %s", database.explain(error)[0])
        finally:
            Session.remove()
        stopping.wait(min(1.0, interval / 4))


def main() -> int:
    """Run the scheduler; return the exit status."""
    settings = config.load()
    logs.configure(settings.release, settings.log_level)
    database.init(settings)
    queues.init(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    log.info("scheduler started")
    try:
        run(settings.scheduler_interval, settings.job_overdue, stopping)
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
