"""Metrics for Prometheus."""

import subprocess
import sys

from prometheus_client import REGISTRY


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0


def test_requests_are_counted(client):
    before = value("guestbook_requests_total", method="GET", status="404")
    client.get("/missing")
    text = client.get("/metrics").text
    assert f'guestbook_requests_total{{method="GET",status="404"}} {before + 1}' in text
    assert "guestbook_request_duration_seconds_count" in text


PROCESS = """
from sample_app.web import metrics
from flask import Flask
metrics.count("GET", 200, 0.5)
app = Flask("counts")
app.register_blueprint(metrics.blueprint)
print(app.test_client().get("/metrics").text)
"""


def test_metrics_are_the_sum_of_all_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for number in (1.0, 2.0):
        text = subprocess.check_output([sys.executable, "-c", PROCESS], text=True)
        assert f'guestbook_requests_total{{method="GET",status="200"}} {number}' in text
