"""The background worker: `python -m sample_app.worker`.

It imports models and engine, never the site. Jobs run in this process (RQ's SimpleWorker), one
after the other, so that they share one engine and its pool; a work horse forked for each job would
open a connection for each job. A job that hangs is ended by RQ's timer; a job that takes the whole
process down is repeated after systemd has started it again.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from typing import Any
from uuid import uuid4

import redis
import tenacity
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job

from sample_app import cache, config, database, jobs, logs, queues, redis_guard

log = logging.getLogger("sample_app.worker")

LOOK = 1  # seconds between two looks whether to stop


class Worker(SimpleWorker):
    """RQ's worker, which loses no job when it is stopped, and comes back to Redis soon.

    RQ ends an idle worker by raising from the signal handler, which may be the moment between Redis
    handing a job over and the worker knowing of it. Here the handler leaves a note, and the wait
    for a job is cut in short pieces between which the note is read.
    """

    max_connection_wait_time = 5.0
    log_result_lifespan = False

    @property
    def stopping(self) -> bool:
        """Whether a signal asked for the end."""
        return self._stop_requested

    def _shutdown(self) -> None:
        self._stop_requested = True

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Return the next job; raises StopRequested when there is none and the end is asked for."""
        while not self.stopping:
            found = super().dequeue_job_and_maintain_ttl(LOOK, LOOK)
            if found is not None:
                return found
        raise StopRequested

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Tell Redis that this worker lives; a worker told to stop does not wait for Redis."""
        try:
            super().heartbeat(timeout, pipeline)
        except redis.ConnectionError:
            if self.stopping:
                raise StopRequested from None
            raise


def make_worker(client: redis.Redis) -> Worker:
    """Return a worker on `client`; raises RedisError when Redis is not there."""
    return Worker(
        [queues.QUEUE],
        connection=client,
        serializer=queues.SERIALIZER,
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}",
        worker_ttl=60,  # seconds; also bounds the wait for a job, and for a Redis that hangs
        maintenance_interval=60,
        log_job_description=False,  # it holds the job's arguments
    )


def work(client: redis.Redis) -> None:
    """Work until asked to stop, through restarts of Redis.

    RQ waits for Redis only while it waits for a job; when the connection breaks at another moment
    it gives up, and is started anew here.
    """

    def session() -> bool:
        worker = make_worker(client)
        try:
            worker.work(logging_level="WARNING")  # the jobs write their own lines
        except redis.RedisError:
            if not worker.stopping:
                raise
        return worker.stopping

    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(redis.RedisError)
        | tenacity.retry_if_result(lambda stopped: not stopped),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=lambda state: log.warning(
            "worker starts again: %s", state.outcome and state.outcome.exception()
        ),
    )(session)


def main() -> int:
    """Set this process up and work; return the exit status."""
    settings = config.load()
    logs.configure(settings.release, settings.log_level)
    database.configure(settings)
    cache.configure(settings)
    queues.configure(settings)
    signal.signal(signal.SIGTERM, _stop_before_work)
    log.info(
        "worker started",
        extra={"jobs": jobs.__name__, "web_imported": "sample_app.web" in sys.modules},
    )
    try:
        work(redis_guard.connect(settings.queue_url))
    except StopRequested:
        log.info("worker stopped while it waited for Redis")
    finally:
        database.close()
    return 0


def _stop_before_work(*_: Any) -> None:
    """Stop at once: RQ puts its own handler in place when it starts to work."""
    raise StopRequested


if __name__ == "__main__":
    sys.exit(main())
