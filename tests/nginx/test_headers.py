"""Client address, links and request IDs that the app sees."""

from __future__ import annotations

import json

import pytest

FORGED = {
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "4443",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-IP": "203.0.113.66",
    "X-Request-ID": "forged-forged",
    "Forwarded": "for=203.0.113.66;proto=https;host=evil.example",
    "X-Forwarded-Scheme": "https",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Protocol": "ssl",
    "X-Forwarded-Server": "evil.example",
    "X-Original-URL": "/admin",
    "X-Rewrite-URL": "/admin",
    "X-Script-Name": "/evil",
    "X_Forwarded_For": "203.0.113.66",
    "Proxy": "http://evil.example",
    "Upgrade": "websocket",
    "Connection": "upgrade",
}


def without_id(seen):
    """Return the request as the app saw it, without the request ID."""
    return seen | {"headers": [pair for pair in seen["headers"] if pair[0] != "X-Request-ID"]}


def test_forged_headers_have_no_effect(visit):
    plain, forged = (json.loads(visit("/notes", more)[0][1]) for more in ({}, FORGED))
    assert without_id(forged) == without_id(plain)
    assert "forged" not in str(forged)


def test_app_sees_the_client_address(visit, headers):
    seen = headers(json.loads(visit("/", source="127.0.0.21")[0][1]))
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.21"


@pytest.mark.parametrize("suffix", ["", ":8080"])
def test_links_have_the_port_of_the_site_or_of_the_request_without_https(
    site, prefix, app_url, https, suffix
):
    seen = site.get("/notes", headers={"Host": f"shop.example.org{suffix}"}).json()
    origin = "https://shop.example.org" if https else f"http://shop.example.org{suffix}"
    assert app_url(seen) == f"{origin}{prefix}/notes"


def test_host_of_an_absolute_url_takes_precedence(raw, prefix):
    url = f"http://shop.example.org{prefix}/"
    answer = raw(f"GET {url} HTTP/1.0\r\nHost: evil.example\r\n\r\n".encode())
    assert b"200 OK" in answer
    assert b"evil" not in answer


def test_request_id_is_the_same_in_log_app_and_response(site, headers, logged):
    answer = site.get("/")
    request_id = answer.headers["X-Request-ID"]
    assert len(request_id) == 32
    assert headers(answer.json())["x-request-id"] == request_id
    assert logged(request_id)["uri"].endswith("/")
    assert site.get("/").headers["X-Request-ID"] != request_id
