"""One tick per interval, with any number of hosts (lesson 8)."""

import threading
import time

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles

from sample_app import lease, notes, queues
from sample_app.database import Session
from sample_app.models import JobStatus, Note, Tick, utcnow
from sample_app.scheduler import LEASE, Scheduler


@pytest.fixture
def two(app, clock):
    """Return the schedulers of two hosts."""
    return [Scheduler(10, 15, f"host{number}:1:x") for number in (1, 2)]


@pytest.fixture
def clock(monkeypatch):
    """Return a function that sets the database's clock, in seconds."""
    now = {"ms": 1_000_000_000}
    compiles(lease.now_ms, "sqlite")(lambda *_args, **_kwargs: str(now["ms"]))
    monkeypatch.setattr(lease.now_ms, "inherit_cache", False)
    yield lambda seconds: now.update(ms=1_000_000_000 + int(seconds * 1000))
    compiles(lease.now_ms, "sqlite")(lease._sqlite_now)


def ticks():
    """Return the number of ticks."""
    Session.remove()
    return Session.scalar(select(func.count()).select_from(Tick))


def holder():
    """Return the holder of the lease."""
    Session.remove()
    return lease.read(Session(), LEASE, 35)[0]


def test_one_tick_for_each_slot(two, clock):
    ticked = [[], []]
    for second in range(60):
        clock(second)
        for number, scheduler in enumerate(two):
            if scheduler.step():
                ticked[number].append(second)
    assert ticked == [[0, 10, 20, 30, 40, 50], []]
    assert ticks() == 6


def test_the_lease_of_a_dead_host_expires(two, clock):
    first, second = two
    assert first.step()
    clock(14.9)
    assert not second.step()
    clock(15.1)
    assert second.step()
    assert holder() == second.holder


def test_a_stopped_scheduler_releases_the_lease(two, clock):
    first, second = two
    assert first.step()
    first.release()
    clock(10)
    assert second.step()


def test_only_the_holder_releases_the_lease(two, clock):
    first, second = two
    assert first.step()
    second.release()
    assert holder() == first.holder


def test_a_holder_that_was_paused_past_its_lease_does_not_tick(two, clock):
    first, second = two
    assert first.step()
    clock(20)
    assert second.step()
    assert not first.step()
    assert ticks() == 2


def test_the_lease_is_renewed_between_ticks(app, clock):
    first, second = Scheduler(60, 35, "one"), Scheduler(60, 35, "two")
    first.step()
    for number in range(60):
        clock(number)
        second.step()
        first.step()
        assert holder() == "one"


def test_a_second_tick_for_a_slot_is_impossible(two, clock):
    first, second = two
    assert first.step()
    Session.execute(text("UPDATE leases SET expires_ms = 0"))
    Session.commit()
    assert not second.step()
    assert ticks() == 1


def test_one_of_two_acquires_the_lease(app, clock):
    assert lease.acquire(Session(), LEASE, "one", 15)
    assert not lease.acquire(Session(), LEASE, "two", 15)
    assert lease.acquire(Session(), LEASE, "one", 15)
    clock(15.1)
    assert lease.acquire(Session(), LEASE, "two", 15)


def test_the_clock_of_the_database_is_set_back_by_an_hour(two, clock):
    first, second = two
    for minute in range(61):
        clock(60 * minute)
        assert first.step()
    ticked = []
    for number in range(30):
        clock(number)
        ticked += [number] if first.step() else []
        assert not second.step()
    assert ticked == [0, 10, 20]
    clock(-3600)
    assert second.step()
    assert holder() == second.holder


def test_the_clock_of_the_database_is_set_back_by_a_second(two, clock):
    clock(10)
    assert two[0].step()
    clock(9)
    assert not two[0].step()
    assert not two[1].step()
    clock(19.9)
    assert not two[0].step()
    assert ticks() == 1


def test_old_ticks_are_deleted(two, clock):
    assert two[0].step()
    clock(2 * 24 * 3600)
    assert two[0].step()
    assert ticks() == 1


def test_the_real_clock_of_the_database(app):
    assert abs(lease.read(Session(), LEASE, 35)[2] - time.time() * 1000) < 2000


def test_jobs_are_queued_when_the_queue_is_available_again(app, stop, start):
    stop("queue")
    note_id, queued = notes.add("Ada", "text")
    scheduler = Scheduler(10, 15)
    scheduler.requeue_notes()
    assert not queued
    assert Session.get(Note, note_id).job_status == JobStatus.WAITING
    Session.remove()
    start("queue")
    scheduler.requeue_notes()
    assert Session.get(Note, note_id).job_status == JobStatus.PENDING
    scheduler.requeue_notes()
    assert queues.stats()["waiting"] == 1, "queued twice"


def test_a_lost_job_is_found_when_it_is_overdue(app):
    note_id, _ = notes.add("Ada", "text")
    assert notes.without_job(Session(), utcnow()) == []
    for clock in (
        notes.JOB_OVERDUE * 1.1,
        notes.JOB_OVERDUE * -1.1,
    ):
        assert notes.without_job(Session(), utcnow() + clock) == [(note_id, None)]


def test_the_scheduler_survives_an_outage_of_mysql(app, monkeypatch):
    scheduler = Scheduler(1, 2)
    outcomes = iter([OperationalError("", {}, Exception()), True])

    def step():
        outcome = next(outcomes)
        if outcome is True:
            scheduler.stop()
            return False
        raise outcome

    monkeypatch.setattr(scheduler, "step", step)
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert next(outcomes, "all used") == "all used"
