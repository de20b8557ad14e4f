"""A job for each queue, which records that it ran."""

import os
from collections.abc import Callable

import dramatiq
import redis
import rq
from celery import Celery
from dramatiq.brokers.redis import RedisBroker
from flask import Blueprint
from flask_socketio import SocketIO
from huey import RedisHuey

QUEUE_URL = os.environ["QUEUE_URL"]
blueprint = Blueprint("jobs", __name__)
cache = redis.Redis.from_url(os.environ["CACHE_URL"])

queue = rq.Queue(connection=redis.Redis.from_url(QUEUE_URL))
celery = Celery("libs")  # reads CELERY_BROKER_URL and CELERY_RESULT_BACKEND
celery.conf.beat_schedule = {"tick": {"task": "tick", "schedule": 1}}
dramatiq.set_broker(RedisBroker(url=QUEUE_URL))
huey = RedisHuey("libs", url=QUEUE_URL)


def init_app(app: object) -> None:
    """Do nothing: these libraries need no app."""


def done(token: str, library: str) -> str:
    """Record that a job ran, and send an event to all sockets."""
    cache.set(f"done:{token}", library, ex=600)
    SocketIO(message_queue=QUEUE_URL).emit("done", token)
    return library


@celery.task(name="tick")
def by_beat() -> None:
    """Count the runs, one a second."""
    cache.incr("ticks")


by_celery = celery.task(name="job")(done)
by_dramatiq = dramatiq.actor(actor_name="job")(done)
by_huey = huey.task(name="job")(done)
SEND: dict[str, Callable] = {
    "rq": lambda *job: queue.enqueue(done, *job),
    "celery": lambda *job: by_celery.delay(*job).get(timeout=10),
    "dramatiq": by_dramatiq.send,
    "huey": by_huey,
}


@blueprint.post("/jobs/<library>/<token>")
def send(library: str, token: str) -> str:
    """Queue a job; with Celery, wait for its result."""
    SEND[library](token, library)
    return "queued"


@blueprint.get("/jobs/<token>")
def result(token: str) -> str:
    """Return the library that ran a job."""
    return (cache.get(f"done:{token}") or b"").decode()


@blueprint.get("/ticks")
def ticks() -> str:
    """Return how often Celery beat's task ran."""
    return (cache.get("ticks") or b"0").decode()
