"""Jobs clean up, and the worker imports no web code."""

import json
import logging
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from sqlalchemy import select, text

from sample_app import cache, database, jobs, logs, notes, queues, worker
from sample_app.database import Session
from sample_app.models import Note, Run

ROOT = Path(__file__).parent.parent


def work(level="WARNING"):
    """Run all queued jobs."""
    worker.create_worker(queues.instance.client).work(burst=True, logging_level=level)


@pytest.mark.parametrize("module", ["worker", "scheduler"])
def test_no_web_code_is_imported(module):
    script = (
        f"import sys, sample_app.{module}; print([name for name in sys.modules"
        " if name.split('.')[0] in ('flask', 'werkzeug', 'jinja2')"
        " or name.startswith('sample_app.web')])"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("error", [None, RuntimeError("a bug"), SystemExit(1)])
def test_a_job_always_closes_its_session(app, error):
    @jobs.job
    def example():
        Session.execute(text("SELECT 1"))
        assert database.engine.pool.checkedout() == 1
        if error:
            raise error

    if error:
        with pytest.raises(type(error)):
            example()
    else:
        example()
    assert database.engine.pool.checkedout() == 0
    assert not Session.registry.has()


def test_failing_jobs_share_one_connection(app):
    batch = queues.queue_batch(30, 3)
    work()
    stats = database.run(jobs.batch_stats, batch)
    assert (stats["finished"], stats["failed"]) == (20, 10)
    assert len(stats["connections"]) == len(stats["workers"]) == 1
    assert database.engine.pool.checkedout() == 0
    assert queues.queue().failed_job_registry.count == 10


def test_a_run_records_both_releases(app, monkeypatch):
    monkeypatch.setattr(queues, "release", "older")
    batch = queues.queue_batch(3, 3)
    monkeypatch.setattr(queues, "release", "newer")
    work()
    found = list(Session.scalars(select(Run).order_by(Run.job)))
    assert [run.job for run in found] == [f"diagnostic-{batch}-{number}" for number in (1, 2, 3)]
    assert {(run.queued_by, run.ran_by, run.worker) for run in found} == {
        ("older", "newer", cache.process_name())
    }
    assert all(run.queued_at <= run.started_at <= run.finished_at for run in found)


def test_old_runs_are_deleted(app):
    queues.queue_batch(2, 0)
    work()
    Session.scalars(select(Run)).first().started_at -= jobs.RUN_LIFETIME * 2
    jobs.delete_old_runs(Session())
    assert len(Session.scalars(select(Run)).all()) == 1


def test_the_request_id_reaches_the_job(app, caplog, monkeypatch):
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
    for message in ("job started", "words counted", "job finished"):
        assert (message, "from-nginx-1") in seen
    note = Session.get(Note, note_id)
    assert note.word_count == 3
    assert (note.request_id, note.counted_by) == ("from-nginx-1", cache.process_name())


def test_a_second_word_count_changes_nothing(app):
    note_id, _ = notes.add("Ada", "one two")
    jobs.word_count(note_id)
    Session.get(Note, note_id).word_count = 7
    Session.commit()
    jobs.word_count(note_id)
    assert Session.get(Note, note_id).word_count == 7


def test_a_failed_word_count_is_retried(app, monkeypatch):
    note_id, _ = notes.add("Ada", "one two")
    count_words, calls = notes.count_words, []

    def fail_once(session, number):
        calls.append(number)
        if len(calls) == 1:
            raise RuntimeError("a temporary failure")
        return count_words(session, number)

    monkeypatch.setattr(notes, "count_words", fail_once)
    work()
    assert Session.get(Note, note_id).word_count == 2


def test_the_signal_handler_of_an_idle_worker_does_not_raise(app):
    idle = worker.create_worker(queues.instance.client)
    idle.request_stop(signal.SIGTERM, None)
    assert idle.stopping


def test_a_job_is_stored_as_json(app):
    notes.add("Ada", "text")
    (job,) = queues.queue().jobs
    data = zlib.decompress(queues.instance.client.hget(job.key, "data"))
    name, _, arguments, _ = json.loads(data)
    assert (name, arguments) == ("sample_app.jobs.word_count", [1])
    assert worker.create_worker(queues.instance.client).serializer is queues.SERIALIZER


def test_arguments_are_not_logged(app, caplog):
    caplog.set_level(logging.INFO)
    queues.queue().enqueue("sample_app.jobs.word_count", "private words")
    work("INFO")
    assert "Job OK" in caplog.text
    assert "private words" not in caplog.text
