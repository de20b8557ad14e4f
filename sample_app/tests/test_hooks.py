"""The doors for programs; see LESSONS 2 and 11."""

import pytest
from conftest import KEY

from sample_app import queues
from sample_app.web import hooks

HEADERS = {"X-Api-Key": KEY}


@pytest.mark.parametrize(
    ("method", "path"),
    [("post", "/hooks/jobs"), ("get", "/hooks/jobs"), ("get", "/hooks/jobs/x"), ("get", "/slow")],
)
def test_nobody_without_the_key(client, method, path):
    """401 says that a key is asked for, 403 that this is not the one."""
    call = getattr(client, method)
    without = call(path)
    assert (without.status_code, without.json["error"]) == (401, "key_missing")
    wrong = call(path, headers={"X-Api-Key": "wrong é"})
    assert (wrong.status_code, wrong.json["error"]) == (403, "key_wrong")


def test_off_without_a_key_of_our_own(make_app):
    """An empty key must not open the door to an empty header."""
    client = make_app(hook_api_key="").test_client()
    for headers in ({}, {"X-Api-Key": ""}, HEADERS):
        answer = client.post("/hooks/jobs", headers=headers, json={})
        assert (answer.status_code, answer.json["error"]) == (503, "hooks_off")


def test_keys_are_compared_in_constant_time(client, monkeypatch):
    """The answer's time tells nothing of the key."""
    compared = []
    monkeypatch.setattr(hooks.hmac, "compare_digest", lambda *pair: compared.append(pair) or False)
    assert client.get("/hooks/jobs", headers=HEADERS).status_code == 403
    assert compared == [(KEY.encode(), KEY.encode())]


def test_jobs_are_queued(client):
    """202, and an address to ask at."""
    answer = client.post("/hooks/jobs", headers=HEADERS, json={"count": 7, "fail_every": 3})
    assert answer.status_code == 202
    assert answer.json["queued"] == 7
    stats = client.get(answer.location, headers=HEADERS).json
    assert (stats["queued"], stats["finished"], stats["failed"]) == (7, 0, 0)
    assert client.get("/hooks/jobs", headers=HEADERS).json == {"waiting": 7, "workers": 0}
    failing = [job.args[1] for job in queues.queue().jobs]
    assert failing == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {"count": 0},
        {"count": 2001},
        {"count": "7"},
        {"count": True},
        {"fail_every": -1},
        {"seconds": 11},
        {"seconds": "1"},
    ],
)
def test_a_bad_body_is_refused(client, body):
    """400, and what is wrong."""
    answer = client.post("/hooks/jobs", headers=HEADERS, json=body)
    assert (answer.status_code, answer.json["error"]) == (400, "bad_request")
    assert queues.stats()["waiting"] == 0


def test_not_json(client):
    """The same for what cannot be read at all."""
    answer = client.post("/hooks/jobs", headers=HEADERS, data="{")
    assert (answer.status_code, answer.json["error"]) == (400, "bad_request")


def test_without_the_queue(client, stop):
    """503 with the reason."""
    stop("queue")
    answer = client.post("/hooks/jobs", headers=HEADERS, json={"count": 1})
    assert (answer.status_code, answer.json["error"]) == (503, "queue_unavailable")
    assert "not reachable" in answer.json["message"]
    assert answer.headers["Retry-After"]


def test_without_the_cache_nothing_changes(client, stop):
    """The two instances fail apart."""
    stop("cache")
    assert client.post("/hooks/jobs", headers=HEADERS, json={"count": 1}).status_code == 202


def test_unknown_batch(client):
    """404."""
    assert client.get("/hooks/jobs/none", headers=HEADERS).status_code == 404


@pytest.mark.parametrize("seconds", ["nan", "x", ""])
def test_slow_refuses_what_is_no_number(client, seconds):
    """400, before the database is asked."""
    assert client.get(f"/slow?seconds={seconds}", headers=HEADERS).status_code == 400


def test_slow_sleeps_in_steps(client, monkeypatch):
    """Many short sleeps: one long SLEEP() would hide that MySQL cut it off."""
    seen = {}
    monkeypatch.setattr(
        hooks.database, "run", lambda work, seconds: seen.update(seconds=seconds, work=work)
    )
    assert client.get("/slow?seconds=2.5", headers=HEADERS).json == {"slept": 2.5}
    assert seen["seconds"] == 2.5

    class Session:
        def execute(self, _query, values):
            seen.update(values)

    seen["work"](Session(), 2.5)
    assert seen["naps"] * seen["nap"] == pytest.approx(2.5)
    assert client.get("/slow?seconds=9999", headers=HEADERS).json == {"slept": 90.0}
