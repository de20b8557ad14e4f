"""The job queue: RQ on the queue instance, which evicts no keys and keeps an append-only file."""

from __future__ import annotations

import logging
from uuid import uuid4

import redis
from rq import Queue, Retry
from rq.serializers import JSONSerializer
from rq.worker_registration import REDIS_WORKER_KEYS

from sample_app import logs
from sample_app.config import Settings
from sample_app.resilient_redis import ResilientRedis

log = logging.getLogger(__name__)

QUEUE = "guestbook"
JOB_TIMEOUT = 30  # seconds
FAILURE_LIFETIME = 3600  # seconds
CHUNK_SIZE = 50  # jobs queued in one round trip, which has a short timeout
SERIALIZER = JSONSerializer  # RQ's default is pickle, which runs code when it is read

instance: ResilientRedis
release = "unreleased"


def init(settings: Settings) -> None:
    """Configure the instance for this process, without a connection."""
    global instance, release
    release = settings.release
    instance = ResilientRedis("queue", settings.queue_url)


def queue() -> Queue:
    """Return the queue on this process's connection."""
    return Queue(
        QUEUE, connection=instance.client, default_timeout=JOB_TIMEOUT, serializer=SERIALIZER
    )


def stats() -> dict[str, int]:
    """Return the number of waiting jobs and of workers; raises Unavailable."""

    def read(client: redis.Redis) -> list[int]:
        with client.pipeline(transaction=False) as pipe:
            return pipe.llen(queue().key).scard(REDIS_WORKER_KEYS).execute()

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
            failure_ttl=FAILURE_LIFETIME,
            retry=Retry(max=2),
        )
    )
    log.info("job queued", extra={"job_id": job.id, "note_id": note_id})


def queue_batch(count: int, fail_every: int, seconds: int = 0) -> str:
    """Queue `count` diagnostic jobs, of which every `fail_every`-th fails (0: none); return its id.

    Raises Unavailable; jobs that were queued before that still run.
    """
    batch = uuid4().hex
    jobs = [
        Queue.prepare_data(
            "sample_app.jobs.diagnostic",
            (bool(fail_every) and number % fail_every == 0, seconds),
            job_id=f"diagnostic-{batch}-{number}",
            timeout=JOB_TIMEOUT,
            meta={"request_id": logs.current_request_id(), "release": release},
            result_ttl=0,
            failure_ttl=60,
        )
        for number in range(1, count + 1)
    ]
    for start in range(0, count, CHUNK_SIZE):
        chunk = jobs[start : start + CHUNK_SIZE]
        instance.call(lambda _, chunk=chunk: queue().enqueue_many(chunk))
    log.info("batch queued", extra={"batch": batch, "jobs": count})
    return batch
