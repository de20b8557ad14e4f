"""The background worker: `python -m sample_app.worker`.

It imports the models and the engine, but not the site. Jobs run one after the other in this process
(RQ's SimpleWorker) and share its connection pool; a process forked per job would connect per job.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from uuid import uuid4

import redis
import tenacity
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job

from sample_app import config, database, jobs, logs, queues, resilient_redis, watchdog

log = logging.getLogger("sample_app.worker")

POLL_INTERVAL = 1  # seconds


class Worker(SimpleWorker):
    """A worker that loses no job when it is stopped, and reconnects to Redis quickly.

    RQ stops an idle worker with an exception in the signal handler, possibly after Redis has
    removed a job from the queue. Here the handler sets a flag, which is read between short waits.
    """

    max_connection_wait_time = 5.0
    log_result_lifespan = False

    @property
    def stopping(self) -> bool:
        """Whether a signal requested the stop."""
        return self._stop_requested

    def _shutdown(self) -> None:
        self._stop_requested = True

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Return the next job; raises StopRequested when there is none and the worker stops."""
        if timeout is None:  # burst mode
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        while not self.stopping:
            found = super().dequeue_job_and_maintain_ttl(POLL_INTERVAL, POLL_INTERVAL)
            if found is not None:
                return found
        raise StopRequested

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send the heartbeats; a worker that stops does not wait for Redis.

        RQ calls this between jobs, and while it waits for jobs or for Redis.
        """
        watchdog.notify()
        try:
            super().heartbeat(timeout, pipeline)
        except redis.ConnectionError:
            if self.stopping:
                raise StopRequested from None
            raise


def create_worker(client: redis.Redis) -> Worker:
    """Return a worker on `client`; raises RedisError when Redis is down."""
    return Worker(
        [queues.QUEUE],
        connection=client,
        serializer=queues.SERIALIZER,
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}",
        worker_ttl=60,  # seconds; also limits the wait for a Redis that hangs
        maintenance_interval=60,
        log_job_description=False,  # contains the arguments
    )


def work(client: redis.Redis) -> None:
    """Work until stopped. RQ gives up when Redis fails during a job; then a new worker starts."""

    def run_worker() -> bool:
        watchdog.notify()
        worker = create_worker(client)
        try:
            worker.work(logging_level="WARNING")
        except redis.RedisError:
            if not worker.stopping:
                raise
        return worker.stopping

    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(redis.RedisError)
        | tenacity.retry_if_result(lambda stopped: not stopped),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=lambda state: log.warning(
            "worker restarts: %s", state.outcome and state.outcome.exception()
        ),
    )(run_worker)


def main() -> int:
    """Run the worker; return the exit status."""
    settings = config.load()
    logs.configure(settings.release, settings.log_level)
    database.init(settings)
    queues.init(settings)
    log.info("worker started", extra={"jobs": jobs.__name__})
    try:
        work(resilient_redis.connect(settings.queue_url))
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
