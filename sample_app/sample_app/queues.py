"""The job queue: RQ on the queue instance, which evicts no keys and keeps an append-only file."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import redis
from rq import Queue, Retry
from rq.serializers import JSONSerializer
from rq.worker_registration import REDIS_WORKER_KEYS

from sample_app import logs, resilient_redis
from sample_app.config import Settings

log = logging.getLogger(__name__)

QUEUE = "guestbook"
JOB_TIMEOUT = 30  # seconds
SERIALIZER = JSONSerializer  # RQ's default is pickle, which runs code when it is read
RESULT_LIFETIME = 3600  # seconds
CHUNK_SIZE = 50  # jobs queued in one round trip

instance: resilient_redis.ResilientRedis
release = "unreleased"


def init(settings: Settings) -> None:
    """Configure the instance for this process, without a connection."""
    global instance, release
    release = settings.release
    instance = resilient_redis.ResilientRedis("queue", settings.queue_url)


def queue() -> Queue:
    """Return the queue on this process's connection."""
    return Queue(
        QUEUE, connection=instance.client, default_timeout=JOB_TIMEOUT, serializer=SERIALIZER
    )


def stats() -> dict[str, int]:
    """Return the number of waiting jobs and of workers; raises Unavailable."""

    def read(client: redis.Redis) -> list[int]:
        with client.pipeline(transaction=False) as pipe:
            pipe.llen(queue().key)
            pipe.scard(REDIS_WORKER_KEYS)
            return pipe.execute()

    jobs, workers = instance.call(read)
    return {"waiting": jobs, "workers": workers}


def queue_word_count(note_id: int, request_id: str | None) -> None:
    """Queue the word count of a note; raises Unavailable."""
    job = instance.call(
        lambda _: queue().enqueue(
            "sample_app.jobs.word_count",
            note_id,
            job_id=f"word-count-{note_id}-{uuid4().hex[:8]}",
            meta={"request_id": request_id},
            result_ttl=60,
            failure_ttl=RESULT_LIFETIME,
            retry=Retry(max=2),
        )
    )
    log.info("job queued", extra={"job_id": job.id, "note_id": note_id})


def queue_batch(count: int, fail_every: int, seconds: int = 0) -> str:
    """Queue `count` diagnostic jobs, of which every `fail_every`-th fails (0: none); return its id.

    Raises Unavailable; jobs that were queued before that still run.
    """
    batch = uuid4().hex
    meta = {"request_id": logs.current_request_id(), "release": release}
    jobs = [
        Queue.prepare_data(
            "sample_app.jobs.diagnostic",
            (batch, bool(fail_every) and number % fail_every == 0, seconds),
            job_id=f"diagnostic-{batch}-{number}",
            timeout=JOB_TIMEOUT,
            meta=meta,
            result_ttl=0,
            failure_ttl=60,
        )
        for number in range(1, count + 1)
    ]
    for start in range(0, count, CHUNK_SIZE):
        chunk = jobs[start : start + CHUNK_SIZE]
        instance.call(lambda client, chunk=chunk: _queue_chunk(client, batch, chunk))
    log.info("batch queued", extra={"batch": batch, "jobs": count})
    return batch


def _queue_chunk(client: redis.Redis, batch: str, jobs: list[Any]) -> None:
    with client.pipeline() as pipe:
        pipe.hincrby(batch_key(batch), "queued", len(jobs))
        pipe.expire(batch_key(batch), RESULT_LIFETIME)
        queue().enqueue_many(jobs, pipeline=pipe)
        pipe.execute()


def batch_key(batch: str, part: str = "counts") -> str:
    """Return the key of a part of a batch's results."""
    return f"guestbook:batch:{batch}:{part}"


def record(batch: str, outcome: str, **values: Any) -> None:
    """Record the outcome of one job of a batch; raises RedisError."""
    with instance.client.pipeline() as pipe:
        pipe.hincrby(batch_key(batch), outcome, 1)
        for part, value in values.items():
            pipe.sadd(batch_key(batch, part), value)
            pipe.expire(batch_key(batch, part), RESULT_LIFETIME)
        pipe.execute()


def batch_stats(batch: str) -> dict[str, Any] | None:
    """Return the results of a batch, or None; raises Unavailable."""
    parts = ("workers", "connections", "web_imported")

    def read(client: redis.Redis) -> list[Any]:
        with client.pipeline() as pipe:
            pipe.hgetall(batch_key(batch))
            for part in parts:
                pipe.smembers(batch_key(batch, part))
            return pipe.execute()

    counts, workers, connections, web_imported = instance.call(read)
    if not counts:
        return None
    return {
        "batch": batch,
        **{key: int(counts.get(key.encode(), 0)) for key in ("queued", "finished", "failed")},
        "workers": sorted(name.decode() for name in workers),
        "connections": sorted(number.decode() for number in connections),
        "web_imported": b"True" in web_imported,
    }
