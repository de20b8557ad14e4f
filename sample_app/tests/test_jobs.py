"""Jobs leave nothing behind and the worker stays lean; see LESSONS 2, 3 and 12."""

import json
import logging
import signal
import subprocess
import sys
import zlib
from datetime import timedelta
from pathlib import Path

import pytest
from rq import Queue
from sqlalchemy import select, text

from sample_app import cache, database, jobs, logs, notes, queues, runs, worker
from sample_app.database import Session
from sample_app.models import Note, Run, Stamp

FOLDER = Path(__file__).parent.parent


def work():
    """Do every job there is, as the worker does."""
    made = worker.make_worker(queues.guard.client)
    made.work(burst=True, logging_level="WARNING")
    return made


@pytest.fixture(autouse=True)
def burst(monkeypatch):
    """Let the worker return when the queue is empty, instead of looking again."""
    dequeue = worker.Worker.__mro__[1].dequeue_job_and_maintain_ttl
    monkeypatch.setattr(
        worker.Worker, "dequeue_job_and_maintain_ttl", lambda self, *_: dequeue(self, None)
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("module", ["worker", "scheduler"])
def test_the_site_is_not_imported(module):
    """Neither process needs Flask, and a job must not cost the building of an app."""
    script = (
        f"import sys, sample_app.{module}; print([name for name in sys.modules"
        " if name.split('.')[0] in ('flask', 'werkzeug', 'jinja2')"
        " or name.startswith('sample_app.web')])"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("error", [None, RuntimeError("a mistake"), SystemExit(1)])
def test_a_job_always_ends_its_session(app, error):
    """Also when it raises, in the middle of a transaction."""

    @jobs.job
    def example():
        Session.execute(text("SELECT 1"))
        assert database.engine().pool.checkedout() == 1
        if error:
            raise error

    if error:
        with pytest.raises(type(error)):
            example()
    else:
        example()
    assert database.engine().pool.checkedout() == 0
    assert not Session.registry.has()


def test_many_failing_jobs_share_one_connection(app):
    """A third of them raises; there is never a second connection."""
    batch = queues.queue_batch(30, 3)
    done = work()
    stats = queues.batch_stats(batch)
    assert (stats["finished"], stats["failed"]) == (20, 10)
    assert (done.successful_job_count, done.failed_job_count) == (0, 0), "counted in Redis only"
    assert len(stats["connections"]) == 1
    assert len(stats["workers"]) == 1
    assert database.engine().pool.checkedout() == 0
    assert queues.queue().failed_job_registry.count == 10


def test_a_run_tells_which_release_queued_it_and_which_ran_it(app, monkeypatch):
    """Not as an argument: a worker of the release before would not know it."""
    monkeypatch.setattr(queues, "release", "older")
    batch = queues.queue_batch(3, 3)
    assert all(len(job.args) == 2 for job in queues.queue().jobs)
    monkeypatch.setattr(queues, "release", "newer")
    work()
    found = list(Session.scalars(select(Run).order_by(Run.job)))
    assert [run.job for run in found] == [f"exercise-{batch}-{number}" for number in (1, 2, 3)]
    assert {(run.queued_by, run.ran_by, run.worker) for run in found} == {
        ("older", "newer", cache.whoami())
    }
    assert all(run.queued_at <= run.began_at <= run.ended_at for run in found)


def test_a_job_from_a_release_that_did_not_say_so_runs_too(app):
    """Jobs wait in Redis while a new release is deployed."""
    queues.queue().enqueue("sample_app.jobs.exercise", "batch", False, job_id="old")
    work()
    assert Session.scalars(select(Run.queued_by)).all() == ["unknown"]


def test_noting_a_run_twice_makes_one_row(app):
    """A transaction whose answer was lost is done again."""
    for _ in range(2):
        database.run(runs.begin, "token", "job", ("older", None), "newer")
    assert len(Session.scalars(select(Run)).all()) == 1


def test_old_runs_are_forgotten(app):
    """The table does not grow without end."""
    for token, age in (("new", timedelta()), ("old", timedelta(days=2))):
        database.run(runs.begin, token, "job", ("older", None), "newer")
        Session.get(Run, token).began_at -= age
    runs.forget(Session())
    assert Session.scalars(select(Run.token)).all() == ["new"]


def test_the_worker_works_in_its_own_process():
    """A forked work horse would open a connection for each job."""
    from rq import SimpleWorker

    assert issubclass(worker.Worker, SimpleWorker)


def test_the_request_id_reaches_the_job(app, caplog, monkeypatch):
    """One id, from nginx to the last line of the job."""
    seen = []
    caplog.set_level(logging.INFO)
    with logs.bound(request_id="from-nginx-1"):
        note_id, queued = notes.add("Ada", "one two three")
    assert queued
    monkeypatch.setattr(
        caplog.handler,
        "emit",
        lambda record: seen.append((record.getMessage(), logs.current_request_id())),
    )
    work()
    assert ("job started", "from-nginx-1") in seen
    assert ("note stamped", "from-nginx-1") in seen
    assert ("job finished", "from-nginx-1") in seen
    note = Session.get(Note, note_id)
    assert (note.stamp, note.words, note.request_id) == (Stamp.DONE, 3, "from-nginx-1")
    assert note.stamped_by == cache.whoami()


def test_stamping_twice_changes_nothing(app):
    """A job may be delivered twice."""
    note_id, _ = notes.add("Ada", "one two")
    jobs.stamp_note(note_id)
    first = Session.get(Note, note_id).stamped_at
    jobs.stamp_note(note_id)
    Session.remove()
    assert Session.get(Note, note_id).stamped_at == first


def test_a_job_that_failed_by_chance_is_tried_again(app, monkeypatch):
    """A note's stamp has two more tries."""
    note_id, _ = notes.add("Ada", "one two")
    stamp, calls = notes.stamp, []

    def unlucky(session, number):
        calls.append(number)
        if len(calls) == 1:
            raise RuntimeError("by chance")
        return stamp(session, number)

    monkeypatch.setattr(notes, "stamp", unlucky)
    work()
    assert Session.get(Note, note_id).stamp == Stamp.DONE


def test_stopping_an_idle_worker_does_not_raise_from_the_handler(app):
    """RQ's own handler could lose the job that Redis is just handing over."""
    made = worker.make_worker(queues.guard.client)
    made.request_stop(signal.SIGTERM, None)
    assert made.stopping


def test_a_worker_is_made_again_when_redis_was_away(app, monkeypatch):
    """RQ gives up in the middle of a job; the process does not."""
    outcomes = iter([OSError, None, "stopped"])

    class Fake:
        stopping = False

        def work(self, **_options):
            outcome = next(outcomes)
            if outcome is OSError:
                raise worker.redis.ConnectionError("away")
            self.stopping = outcome == "stopped"

    monkeypatch.setattr(worker, "make_worker", lambda _client: Fake())
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    worker.work(None)
    assert next(outcomes, "all used") == "all used"


def test_a_job_is_data_and_never_code(app):
    """What is in Redis is read as JSON: a pickle would run what it holds."""
    notes.add("Ada", "text")
    (job,) = queues.queue().jobs
    name, _, arguments, _ = json.loads(zlib.decompress(queues.guard.client.hget(job.key, "data")))
    assert (name, arguments) == ("sample_app.jobs.stamp_note", [1])
    assert worker.make_worker(queues.guard.client).serializer is queues.SERIALIZER


def test_arguments_are_not_in_the_log(app, caplog):
    """RQ would log them as the job's description."""
    caplog.set_level(logging.INFO)
    queue: Queue = queues.queue()
    queue.enqueue("sample_app.jobs.stamp_note", "private words")
    worker.make_worker(queues.guard.client).work(burst=True, logging_level="INFO")
    assert "Job OK" in caplog.text
    assert "private words" not in caplog.text
