"""The path of a request: client address, forwarded headers, request ID and timeouts."""

from __future__ import annotations

import time

from helpers.clients import journal, json_lines, live_web
from helpers.wait import wait_for

FORGED = {
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "4443",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-IP": "203.0.113.66",
    "Forwarded": "for=203.0.113.66;proto=http;host=evil.example",
}


def test_the_app_sees_the_real_client(host, site):
    seen = site.get("/whoami").json()
    # The host sees the controller at the gateway of its network.
    gateway = host.check_output("ip -4 route show default").split()[2]
    assert seen["remote_addr"] == gateway
    assert (seen["scheme"], seen["host"], seen["prefix"]) == ("https", "localhost", "")


def test_forged_headers_change_nothing(site):
    honest, forged = site.get("/whoami").json(), site.get("/whoami", headers=FORGED).json()
    for field in ("remote_addr", "scheme", "host", "port", "prefix", "url"):
        assert forged[field] == honest[field], field


def test_the_app_builds_urls_with_the_port_of_the_site(site):
    assert site.get("/whoami").json()["url"] == "https://localhost/"
    forged = site.get("/whoami", headers={"Host": "localhost:8080"})
    assert forged.json()["url"] == "https://localhost/"


def test_static_files_are_cached_and_served_by_nginx(host, site):
    page = site.get("/").text
    path = page.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = site.get(path)
    assert answer.status_code == 200
    assert "immutable" in answer.headers["Cache-Control"]
    assert "text/css" in answer.headers["Content-Type"]
    identity = answer.headers["X-Request-ID"]

    def logged():
        lines = journal(host, "nginx.service", since="-1min", grep=lambda line: identity in line)
        return [entry["upstream_addr"] for entry in json_lines(lines)]

    assert wait_for(logged) == [""]


def test_events_arrive_one_by_one(site):
    arrived = []
    with site.get("/stream?count=4&pause=0.5", stream=True) as answer:
        for line in answer.iter_lines():
            if line.startswith(b"data:"):
                arrived.append(time.monotonic())
    assert len(arrived) == 4
    assert arrived[-1] - arrived[0] > 1.0, "the events were buffered"


def test_one_request_id_from_nginx_through_the_app_to_the_job(host, site, diagnostics):
    answer = diagnostics("POST", "/jobs", json={"count": 1})
    identity = answer.headers["X-Request-ID"]

    def loggers():
        lines = journal(
            host,
            "nginx.service",
            live_web(host, "sample"),
            "sample-worker@1.service",
            since="-1min",
            grep=lambda line: identity in line,
        )
        entries = json_lines(lines)
        return {"nginx" if "upstream_addr" in entry else entry["logger"] for entry in entries}

    def all_found():
        return loggers() >= {"nginx", "sample_app.queues", "sample_app.jobs"}

    wait_for(all_found, 10)


def test_a_slow_request_gets_the_response_of_the_app(diagnostics, settings):
    assert diagnostics("GET", "/slow?seconds=1").status_code == 200
    limit = settings["request_timeout"]
    answer = diagnostics("GET", f"/slow?seconds={limit + 20}", timeout=limit + 30)
    assert answer.status_code in (503, 504)
    assert answer.headers["Content-Type"].startswith("application/json"), (
        "this is the page of nginx"
    )
    assert answer.json()["error"] == "statement_timeout", "MySQL's limit was not the first"
    assert answer.elapsed.total_seconds() < limit
