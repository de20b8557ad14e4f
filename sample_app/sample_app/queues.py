"""The job queue: RQ on the queue instance, which never evicts and keeps an append-only file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import redis
from rq import Queue, Retry
from rq.serializers import JSONSerializer
from rq.worker_registration import REDIS_WORKER_KEYS

from sample_app import logs, redis_guard
from sample_app.config import Settings

log = logging.getLogger(__name__)

QUEUE = "guestbook"
JOB_TIMEOUT = 30  # seconds
SERIALIZER = JSONSerializer  # RQ's default is pickle: writing to Redis would be running code
KEEP = 3600  # seconds that results and batches are kept
CHUNK = 50  # jobs handed over in one round trip

guard: redis_guard.GuardedRedis
release = "unreleased"


def configure(settings: Settings, client: redis.Redis | None = None) -> None:
    """Set the instance up for this process; nothing is connected yet."""
    global guard, release
    release = settings.release
    client = client or redis_guard.connect(settings.queue_url)
    guard = redis_guard.GuardedRedis("queue", client)


def queue() -> Queue:
    """Return the queue on this process's connection."""
    return Queue(QUEUE, connection=guard.client, default_timeout=JOB_TIMEOUT, serializer=SERIALIZER)


def stats() -> dict[str, int]:
    """Return how many jobs wait and how many workers listen; raises Unavailable."""

    def ask(client: redis.Redis) -> list[int]:
        with client.pipeline(transaction=False) as pipe:
            pipe.llen(queue().key)
            pipe.scard(REDIS_WORKER_KEYS)
            return pipe.execute()

    jobs, workers = guard.call(ask)
    return {"waiting": jobs, "workers": workers}


def queue_stamp(note_id: int, request_id: str | None) -> None:
    """Queue the stamping of a note; raises Unavailable. Queued twice, it is still stamped once."""
    job = guard.call(
        lambda _: queue().enqueue(
            "sample_app.jobs.stamp_note",
            note_id,
            job_id=f"stamp-{note_id}-{uuid4().hex[:8]}",
            meta={"request_id": request_id},
            result_ttl=60,
            failure_ttl=KEEP,
            retry=Retry(max=2),
        )
    )
    log.info("job queued", extra={"job_id": job.id, "note_id": note_id})


def queue_batch(count: int, fail_every: int, seconds: int = 0) -> str:
    """Queue `count` jobs of which every `fail_every`-th raises (0: none); return the batch's id.

    Each takes `seconds`. Raises Unavailable; the jobs handed over before that still run.
    """
    batch = uuid4().hex
    # Not as arguments, unless they are asked for: a worker of the release before may take the job.
    meta = {"request_id": logs.current_request_id(), "release": release}
    jobs = [
        Queue.prepare_data(
            "sample_app.jobs.exercise",
            (batch, bool(fail_every) and number % fail_every == 0, *([seconds] if seconds else [])),
            job_id=f"exercise-{batch}-{number}",
            timeout=JOB_TIMEOUT,
            meta=meta,
            result_ttl=0,
            failure_ttl=60,
        )
        for number in range(1, count + 1)
    ]
    for chunk in (jobs[start : start + CHUNK] for start in range(0, count, CHUNK)):
        guard.call(lambda client, chunk=chunk: _hand_over(client, batch, chunk))
    log.info("batch queued", extra={"batch": batch, "jobs": count})
    return batch


def _hand_over(client: redis.Redis, batch: str, jobs: Iterable[Any]) -> None:
    jobs = list(jobs)
    with client.pipeline() as pipe:
        pipe.hincrby(batch_key(batch), "queued", len(jobs))
        pipe.expire(batch_key(batch), KEEP)
        queue().enqueue_many(jobs, pipeline=pipe)
        pipe.execute()


def batch_key(batch: str, part: str = "counts") -> str:
    """Return the key that holds a part of what is known of a batch."""
    return f"guestbook:batch:{batch}:{part}"


def record(batch: str, outcome: str, **sets: Any) -> None:
    """Count one outcome of a batch and remember who had a part in it; raises RedisError.

    Past the breaker: it is the worker that calls this, which has nobody waiting for it.
    """
    with guard.client.pipeline() as pipe:
        pipe.hincrby(batch_key(batch), outcome, 1)
        for part, value in sets.items():
            pipe.sadd(batch_key(batch, part), value)
            pipe.expire(batch_key(batch, part), KEEP)
        pipe.execute()


def batch_stats(batch: str) -> dict[str, Any] | None:
    """Return a batch's counts and who had a part in it, or None; raises Unavailable."""
    parts = ("workers", "connections", "web_imported")

    def read(client: redis.Redis) -> list[Any]:
        with client.pipeline() as pipe:
            pipe.hgetall(batch_key(batch))
            for part in parts:
                pipe.smembers(batch_key(batch, part))
            return pipe.execute()

    counts, *members = guard.call(read)
    if not counts:
        return None
    numbers = {key.decode(): int(value) for key, value in counts.items()}
    who = {
        part: sorted(m.decode() for m in found) for part, found in zip(parts, members, strict=True)
    }
    return {
        "batch": batch,
        **{key: numbers.get(key, 0) for key in ("queued", "finished", "failed")},
        "workers": who["workers"],
        "connections": who["connections"],
        "web_imported": "True" in who["web_imported"],
    }
