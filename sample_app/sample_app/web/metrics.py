"""Metrics of the site for Prometheus, over all processes of Gunicorn."""

from __future__ import annotations

import os

from flask import Blueprint, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

blueprint = Blueprint("metrics", __name__)

REQUESTS = Counter("guestbook_requests", "Requests that the app answered.", ["method", "status"])
DURATION = Histogram("guestbook_request_duration_seconds", "Time to answer a request.")


@blueprint.get("/metrics")
def show() -> Response:
    """Return the metrics of all processes; of this one only without PROMETHEUS_MULTIPROC_DIR."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def count(method: str, status: int, seconds: float) -> None:
    """Count a request that was answered."""
    REQUESTS.labels(method, status).inc()
    DURATION.observe(seconds)
