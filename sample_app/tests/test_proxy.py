"""Forwarded headers, URL prefix, cookies and keys."""

import re

import pytest
from conftest import csrf_token

from sample_app import notes

FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "book.example",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Prefix": "/shop",
    "X-Request-Id": "id-from-nginx-01",
}
OLD, NEW = "the previous key", "the current key"


@pytest.fixture
def proxied(make_app):
    """Return a browser behind one proxy."""
    return make_app(trusted_proxy_hops=1).test_client()


def test_one_proxy_is_trusted(proxied):
    response = proxied.get("/whoami", headers=FORWARDED)
    assert "X-Request-Id" not in response.headers, "nginx sets it"
    seen = response.json
    assert seen["remote_addr"] == "203.0.113.9"
    assert (seen["scheme"], seen["is_secure"], seen["host"]) == ("https", True, "book.example")
    assert (seen["port"], seen["prefix"]) == ("443", "/shop")
    assert seen["url"] == "https://book.example/shop/"
    assert seen["request_id"] == "id-from-nginx-01"
    assert seen["release"] == "test-release"


def test_no_client_is_trusted(client):
    response = client.get("/whoami", headers=FORWARDED)
    seen = response.json
    assert seen["remote_addr"] == "127.0.0.1"
    assert (seen["scheme"], seen["host"], seen["prefix"]) == ("http", "localhost", "")
    assert seen["request_id"] == response.headers["X-Request-Id"] != "id-from-nginx-01"


@pytest.mark.parametrize(("hops", "address"), [(1, "10.0.0.2"), (2, "203.0.113.9")])
def test_the_declared_number_of_proxies_is_trusted(make_app, hops, address):
    client = make_app(trusted_proxy_hops=hops).test_client()
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2"}
    assert client.get("/whoami", headers=headers).json["remote_addr"] == address


@pytest.mark.parametrize(
    "given", ["short", "x" * 65, "with space in it", 'quote"quote"', "new\u2028line-abc", ""]
)
def test_an_invalid_request_id_is_replaced(proxied, given):
    headers = {"X-Request-Id": given.encode().decode("latin-1")}
    found = proxied.get("/whoami", headers=headers).json["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", found)


def test_every_link_has_the_prefix(proxied):
    for _ in range(notes.PAGE_SIZE + 1):
        notes.add("Ada", "text")
    response = proxied.get("/", headers=FORWARDED)
    assert "/shop/?before=" in response.text
    links = re.findall(r'(?:href|src|action|data-poll)="([^"#][^"]*)"', response.text)
    assert len(links) > 7
    assert [link for link in links if not link.startswith("/shop/")] == []
    assert "Path=/shop" in response.headers["Set-Cookie"]


def test_a_note_under_a_prefix(proxied):
    client = proxied.application.test_client(use_cookies=False)
    page = client.get("/", headers=FORWARDED)
    data = {"csrf_token": csrf_token(page.text), "author": "Ada", "body": "x"}
    cookie = page.headers["Set-Cookie"].split(";")[0]
    headers = {**FORWARDED, "Referer": "https://book.example/shop/", "Cookie": cookie}
    response = client.post("/notes", data=data, headers=headers)
    assert (response.status_code, response.location) == (303, "/shop/#note-1")
    headers["Referer"] = "https://evil.example/"
    assert client.post("/notes", data=data, headers=headers).status_code == 400


def test_the_cookie_follows_the_scheme(client, proxied):
    cookie = client.get("/").headers["Set-Cookie"]
    assert cookie.startswith("guestbook=")
    assert "Secure" not in cookie
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    cookie = proxied.get("/", headers=FORWARDED).headers["Set-Cookie"]
    assert cookie.startswith("__Secure-guestbook=")
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))


@pytest.mark.parametrize(
    ("signed_by", "read_by", "status"),
    [
        ((OLD,), (NEW, OLD), 303),  # a rotation
        ((OLD,), (NEW,), 400),  # after the rotation
        ((NEW, OLD), (NEW,), 303),
        ((NEW, OLD), (OLD, NEW), 303),  # a host that still signs with the previous key
    ],
)
def test_sessions_and_forms_survive_a_rotation(make_app, signed_by, read_by, status):
    def browser(key, *fallbacks):
        return make_app(secret_key=key, secret_key_fallbacks=fallbacks).test_client()

    before = browser(*signed_by)
    data = {"csrf_token": csrf_token(before.get("/").text), "author": "Ada", "body": "text"}
    after = browser(*read_by)
    after.set_cookie("guestbook", before.get_cookie("guestbook").value)
    assert after.post("/notes", data=data).status_code == status
