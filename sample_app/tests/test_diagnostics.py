"""The test-only routes (lessons 2, 8, 11 and 17)."""

import re

import pytest
from conftest import KEY

from sample_app import queues
from sample_app.web import diagnostics

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


def test_keys_are_compared_in_constant_time(client, monkeypatch):
    compared = []
    monkeypatch.setattr(
        diagnostics.hmac, "compare_digest", lambda *pair: compared.append(pair) or False
    )
    assert client.get("/slow", headers=HEADERS).status_code == 403
    assert compared == [(KEY.encode(), KEY.encode())]


def test_jobs_are_queued(client):
    response = client.post("/jobs", headers=HEADERS, json={"count": 7, "fail_every": 3})
    assert (response.status_code, response.json["queued"]) == (202, 7)
    batch = client.get(response.location, headers=HEADERS).json
    assert (batch["queued"], batch["finished"], batch["failed"]) == (7, 0, 0)
    assert queues.stats() == {"waiting": 7, "workers": 0}
    failing = [job.args[1] for job in queues.queue().jobs]
    assert failing == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    "body",
    [
        {"json": None},
        {"json": []},
        {"data": "{"},
        {"json": {"count": 0}},
        {"json": {"count": 2001}},
        {"json": {"count": "7"}},
        {"json": {"count": True}},
        {"json": {"fail_every": -1}},
        {"json": {"seconds": 11}},
    ],
)
def test_an_invalid_body_is_refused(client, body):
    response = client.post("/jobs", headers=HEADERS, **body)
    assert (response.status_code, response.json["error"]) == (400, "bad_request")
    assert queues.stats()["waiting"] == 0


@pytest.mark.parametrize(("instance", "status"), [("queue", 503), ("cache", 202)])
def test_jobs_need_the_queue_only(client, stop, instance, status):
    stop(instance)
    response = client.post("/jobs", headers=HEADERS, json={"count": 1})
    assert response.status_code == status
    if status == 503:
        assert response.json["error"] == "queue_unavailable"
        assert "not reachable" in response.json["message"]
        assert response.headers["Retry-After"]


def test_an_unknown_batch_is_404(client):
    assert client.get("/jobs/none", headers=HEADERS).status_code == 404


@pytest.mark.parametrize(
    "path", ["/slow?seconds=nan", "/slow?seconds=", "/stream?pause=x", "/stream?count=1e9"]
)
def test_what_is_not_a_number_is_refused(client, path):
    assert client.get(path, headers=HEADERS).status_code == 400


def test_a_slow_query_consists_of_short_sleeps(client, monkeypatch):
    calls = []

    class Session:
        def execute(self, _query, values):
            calls.append(values)

    monkeypatch.setattr(diagnostics.database, "run", lambda work, seconds: work(Session(), seconds))
    assert client.get("/slow?seconds=2.5", headers=HEADERS).json == {"slept": 2.5}
    assert calls[0]["count"] * calls[0]["sleep"] == pytest.approx(2.5)
    assert client.get("/slow?seconds=9999", headers=HEADERS).json == {"slept": 90.0}


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
