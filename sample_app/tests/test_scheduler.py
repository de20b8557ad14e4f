"""One tick an interval, whoever is alive; see LESSONS 8."""

import threading

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from sample_app import lease, notes
from sample_app.database import Session
from sample_app.models import Note, Stamp, Tick, utcnow
from sample_app.scheduler import LEASE, Scheduler


@pytest.fixture
def two(app, clock):
    """Return two schedulers, as on two hosts."""
    return [Scheduler(10, 15, f"host{number}:1:x") for number in (1, 2)]


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that stands still: `set(seconds)`; the database's is replaced by it."""
    now = {"ms": 1_000_000_000}
    from sqlalchemy.ext.compiler import compiles

    compiles(lease.now_ms, "sqlite")(lambda *_args, **_kwargs: str(now["ms"]))
    monkeypatch.setattr(lease.now_ms, "inherit_cache", False)
    yield lambda seconds: now.update(ms=1_000_000_000 + int(seconds * 1000))
    compiles(lease.now_ms, "sqlite")(lease._sqlite_now)


def ticks():
    """Return how many ticks there are."""
    Session.remove()
    return Session.scalar(select(func.count()).select_from(Tick))


def holder():
    """Return who holds the lease."""
    Session.remove()
    return lease.peek(Session(), LEASE, 35)[0]


def test_one_tick_for_each_slot(two, clock):
    """Two hosts looking every second for a minute make six ticks, all by one of them."""
    ticked = [[], []]
    for second in range(60):
        clock(second)
        for number, scheduler in enumerate(two):
            if scheduler.step():
                ticked[number].append(second)
    assert ticked == [[0, 10, 20, 30, 40, 50], []]
    assert ticks() == 6


def test_the_other_takes_over_when_the_holder_dies(two, clock):
    """Within the lease's time, and without the holder's help."""
    first, second = two
    assert first.step()
    clock(14.9)
    assert not second.step()
    clock(15.1)
    assert second.step()
    assert holder() == second.holder


def test_the_other_takes_over_at_once_when_the_holder_is_stopped(two, clock):
    """A clean stop releases the lease."""
    first, second = two
    assert first.step()
    first._release()
    clock(10)
    assert second.step()


def test_a_lease_that_is_not_ours_is_not_released(two, clock):
    """Someone else's stop must not cause two holders."""
    first, second = two
    assert first.step()
    second._release()
    assert holder() == first.holder


def test_a_holder_that_slept_too_long_does_not_tick(two, clock):
    """A paused machine wakes up believing that it still holds the lease."""
    first, second = two
    assert first.step()
    clock(20)
    assert second.step()
    assert not first.step()
    assert ticks() == 2


def test_the_lease_is_renewed_between_ticks(app, clock):
    """With a long interval the holder keeps it all the same."""
    first, second = Scheduler(60, 35, "one"), Scheduler(60, 35, "two")
    first.step()
    for number in range(60):
        clock(number)
        second.step()
        first.step()
        assert holder() == "one"


def test_a_second_tick_for_a_slot_is_impossible(two, clock):
    """Even if the lease were at fault: the slot is the key."""
    first, second = two
    assert first.step()
    Session.execute(text("UPDATE leases SET expires_ms = 0"))
    Session.commit()
    assert not second.step()
    assert ticks() == 1


def test_of_two_that_reach_for_the_lease_one_gets_it(app, clock):
    """Both may have seen it free a moment before."""
    assert lease.acquire(Session(), LEASE, "one", 15)
    assert not lease.acquire(Session(), LEASE, "two", 15)
    assert lease.acquire(Session(), LEASE, "one", 15)
    clock(15.1)
    assert lease.acquire(Session(), LEASE, "two", 15)


def test_it_ticks_on_when_the_clock_of_the_database_is_set_back(two, clock):
    """By an hour, in slots that had their ticks already; so does the other when the holder dies."""
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


def test_a_small_step_of_the_clock_makes_no_second_tick(two, clock):
    """Time servers set a clock right by less than an interval."""
    clock(10)
    assert two[0].step()
    clock(9)
    assert not two[0].step()
    assert not two[1].step()
    clock(19.9)
    assert not two[0].step()
    assert ticks() == 1


def test_old_ticks_are_forgotten(two, clock):
    """The table does not grow for ever."""
    assert two[0].step()
    clock(2 * 24 * 3600)
    assert two[0].step()
    assert ticks() == 1


def test_the_real_clock_of_the_database(app):
    """`now_ms` is milliseconds since 1970."""
    import time

    assert abs(lease.peek(Session(), LEASE, 35)[2] - time.time() * 1000) < 2000


def test_notes_are_queued_when_the_queue_is_back(app, stop, start, queue_length):
    """A note written while Redis was away gets its stamp later."""
    stop("queue")
    note_id, queued = notes.add("Ada", "text")
    scheduler = Scheduler(10, 15)
    scheduler.after_tick()
    assert not queued
    assert Session.get(Note, note_id).stamp == Stamp.WAITING
    Session.remove()
    start("queue")
    scheduler.after_tick()
    assert Session.get(Note, note_id).stamp == Stamp.PENDING
    scheduler.after_tick()
    assert queue_length() == 1, "queued once more than needed"


def test_a_lost_job_is_queued_again(app, queue_length):
    """Not at once, though: it may only be slow."""
    note_id, _ = notes.add("Ada", "text")
    assert notes.unqueued(Session(), utcnow()) == []
    for clock in (notes.OVERDUE * 1.1, notes.OVERDUE * -1.1):  # later, and set back
        assert notes.unqueued(Session(), utcnow() + clock) == [(note_id, None)]


@pytest.fixture
def queue_length():
    """Return a function that counts the waiting jobs."""
    from sample_app import queues

    return lambda: queues.stats()["waiting"]


def test_it_goes_on_when_mysql_is_away(app, monkeypatch):
    """A restart of the database costs ticks, not the scheduler."""
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
