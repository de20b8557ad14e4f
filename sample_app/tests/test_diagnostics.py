"""The test-only routes."""

import re

import pytest
from conftest import KEY

from sample_app import queues

HEADERS = {"X-Api-Key": KEY}
WITH_KEY = [("post", "/jobs"), ("get", "/jobs/x"), ("get", "/slow")]
WITHOUT_KEY = [("get", "/whoami"), ("post", "/counter"), ("get", "/stream")]


@pytest.mark.parametrize(("method", "path"), WITH_KEY + WITHOUT_KEY)
def test_every_route_is_404_unless_a_key_is_configured(make_app, method, path):
    client = make_app(diagnostics_key="").test_client()
    for headers in ({}, {"X-Api-Key": ""}, HEADERS):
        assert getattr(client, method)(path, headers=headers).status_code == 404


def test_every_route_of_the_blueprint_is_listed_here(app):
    rules = {rule.rule for rule in app.url_map.iter_rules() if "diagnostics" in rule.endpoint}
    assert rules == {path.replace("/x", "/<batch>") for _, path in WITH_KEY + WITHOUT_KEY}


@pytest.mark.parametrize(("method", "path"), WITH_KEY)
@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong é", 403)])
def test_a_missing_or_wrong_key_is_refused(client, method, path, key, status):
    headers = {"X-Api-Key": key} if key else {}
    assert getattr(client, method)(path, headers=headers).status_code == status


def test_jobs_are_queued(client):
    response = client.post("/jobs", headers=HEADERS, json={"count": 70, "fail_every": 3})
    assert (response.status_code, response.json["queued"]) == (202, 70)
    batch = client.get(response.location, headers=HEADERS).json
    assert batch == {"finished": 0, "failed": 0, "workers": [], "connections": []}
    assert queues.stats() == {"waiting": 70, "workers": 0}
    failing = [job.args[0] for job in queues.queue().jobs[:7]]
    assert failing == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(("instance", "status"), [("queue", 503), ("cache", 202)])
def test_jobs_need_the_queue_only(client, stop, instance, status):
    stop(instance)
    response = client.post("/jobs", headers=HEADERS, json={"count": 1})
    assert response.status_code == status
    if status == 503:
        assert response.json["error"] == "queue_unavailable"
        assert "not reachable" in response.json["message"]
        assert response.headers["Retry-After"]


@pytest.mark.parametrize("path", ["/slow?seconds=", "/stream?pause=x", "/stream?count=1e9"])
def test_an_invalid_number_is_refused(client, path):
    assert client.get(path, headers=HEADERS).status_code == 400


def test_the_stream_sends_its_events_one_by_one(client):
    response = client.get("/stream?count=3&pause=0", buffered=False)
    assert response.mimetype == "text/event-stream"
    assert "X-Accel-Buffering" not in response.headers, "would hide a proxy that buffers"
    events = [event.decode() for event in response.response]
    assert [re.match(r"id: (\d+)\n", event)[1] for event in events] == ["1", "2", "3"]
    assert client.get("/stream?count=9999&pause=0").text.count("event: tick") == 20


def test_the_counter_counts_pages_too(client):
    client.get("/")
    assert client.post("/counter").json["value"] == 2
