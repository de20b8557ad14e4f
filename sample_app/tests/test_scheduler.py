"""One tick per interval, with any number of hosts."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from sample_app import notes, queues, scheduler
from sample_app.database import Session
from sample_app.models import Note, Tick

HOUR = 3600


@pytest.fixture
def clock(app, monkeypatch):
    """Return a function that sets the clock of the database, in seconds."""
    start = 1_000_000
    yield lambda seconds: monkeypatch.setattr("time.time", lambda: start + seconds)
    Session.remove()


def ticks():
    """Return the number of ticks."""
    return Session.scalar(select(func.count()).select_from(Tick))


def test_one_tick_for_each_slot(clock):
    ticked = []
    for second in range(60):
        clock(second)
        if any([scheduler.tick(10), scheduler.tick(10)]):  # two hosts
            ticked.append(second)
    assert ticked == [0, 10, 20, 30, 40, 50]
    assert ticks() == 6


def test_two_hosts_that_tick_at_the_same_time(clock, monkeypatch):
    clock(0)
    assert scheduler.tick(10)
    # The second host read the table before the first one committed.
    monkeypatch.setattr(scheduler.func, "max", lambda _column: func.min(0))
    assert not scheduler.tick(10)
    assert ticks() == 1


def test_the_clock_of_the_database_is_set_back_by_an_hour(clock):
    for minute in range(61):
        clock(60 * minute)
        assert scheduler.tick(10)
    ticked = []
    for second in range(60):
        clock(second)
        ticked += [second] if scheduler.tick(10) else []
    assert ticked == [10, 20, 30, 40, 50]  # slot 0 exists


def test_old_ticks_are_deleted(clock):
    clock(0)
    assert scheduler.tick(10)
    clock(25 * HOUR)
    assert scheduler.tick(10)
    assert ticks() == 1


def test_jobs_are_queued_when_the_queue_is_available_again(app, stop, start):
    stop("queue")
    note_id, queued = notes.add("Ada", "text")
    scheduler.requeue_notes(300)
    assert not queued
    assert Session.get(Note, note_id).queued_at is None
    Session.remove()
    start("queue")
    for _ in range(2):
        scheduler.requeue_notes(300)
    assert queues.stats()["waiting"] == 1, "queued twice"


def test_a_lost_job_is_found_when_it_is_overdue(app):
    note_id, _ = notes.add("Ada", "text")
    assert notes.without_job(Session(), 300) == []
    Session.get(Note, note_id).queued_at -= timedelta(seconds=301)
    assert notes.without_job(Session(), 300) == [(note_id, None)]


def test_the_scheduler_survives_an_outage_of_mysql(app, monkeypatch):
    stopping = threading.Event()
    calls = []

    def tick(interval):
        calls.append(interval)
        if len(calls) == 1:
            raise OperationalError("", {}, Exception())
        stopping.set()

    monkeypatch.setattr(scheduler, "tick", tick)
    scheduler.run(1, 300, stopping)
    assert calls == [1, 1]
