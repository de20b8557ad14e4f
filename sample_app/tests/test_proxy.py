"""Who the app believes, behind how many proxies, and under which prefix; see LESSONS 5 and 6."""

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


@pytest.fixture
def proxied(make_app):
    """Return a browser that comes through one proxy."""
    return make_app(trusted_proxy_hops=1).test_client()


def test_one_proxy_is_believed(proxied):
    """Address, scheme, host and prefix are the visitor's."""
    seen = proxied.get("/whoami", headers=FORWARDED).json
    assert seen["remote_addr"] == "203.0.113.9"
    assert (seen["scheme"], seen["is_secure"], seen["host"]) == ("https", True, "book.example")
    assert (seen["port"], seen["prefix"]) == ("443", "/shop")
    assert seen["url"] == "https://book.example/shop/"
    assert seen["request_id"] == "id-from-nginx-01"
    assert seen["release"] == "test-release"


def test_without_a_proxy_nobody_is_believed(client):
    """A visitor could claim anything."""
    seen = client.get("/whoami", headers=FORWARDED).json
    assert seen["remote_addr"] == "127.0.0.1"
    assert (seen["scheme"], seen["host"], seen["prefix"]) == ("http", "localhost", "")
    assert seen["request_id"] != "id-from-nginx-01"


@pytest.mark.parametrize(("hops", "address"), [(1, "10.0.0.2"), (2, "203.0.113.9")])
def test_as_many_hops_as_declared(make_app, hops, address):
    """The values before those are the visitor's own words."""
    client = make_app(trusted_proxy_hops=hops).test_client()
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2"}
    assert client.get("/whoami", headers=headers).json["remote_addr"] == address


def test_every_link_keeps_the_prefix(proxied):
    """Mounted under /shop, nothing on the page leads out of it, cookies included."""
    for _ in range(notes.PAGE + 1):
        notes.add("Ada", "text")
    answer = proxied.get("/", headers=FORWARDED)
    assert "/shop/?before=" in answer.text
    links = re.findall(r'(?:href|src|action|data-poll)="([^"#][^"]*)"', answer.text)
    assert len(links) > 8
    assert [link for link in links if not link.startswith("/shop/")] == []
    assert "Path=/shop" in answer.headers["Set-Cookie"]


def test_a_note_under_a_prefix(proxied):
    """The redirect stays under it, over https; a form from another site is refused."""
    proxied = proxied.application.test_client(use_cookies=False)
    page = proxied.get("/", headers=FORWARDED)
    data = {"author": "Ada", "body": "x", "csrf_token": csrf_token(page.text)}
    cookie = page.headers["Set-Cookie"].split(";")[0]
    headers = {**FORWARDED, "Referer": "https://book.example/shop/", "Cookie": cookie}
    answer = proxied.post("/notes", data=data, headers=headers)
    assert (answer.status_code, answer.location) == (303, "/shop/#note-1")
    headers["Referer"] = "https://evil.example/"
    assert proxied.post("/notes", data=data, headers=headers).status_code == 400


def test_cookie_over_https(proxied):
    """Secure, and of another name than over http, as browsers share cookies between ports."""
    cookie = proxied.get("/", headers=FORWARDED).headers["Set-Cookie"]
    assert cookie.startswith("__Secure-guestbook=")
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))


def test_cookie_over_http(client):
    """Not Secure, or the form would not work on a local server."""
    cookie = client.get("/").headers["Set-Cookie"]
    assert cookie.startswith("guestbook=")
    assert "Secure" not in cookie
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))


@pytest.mark.parametrize(
    "given", ["short", "x" * 65, "with space in it", 'quote"quote"', "new\u2028line-abc", ""]
)
def test_unfit_request_ids_are_replaced(proxied, given):
    """What is written to logs has a known shape."""
    headers = {"X-Request-Id": given.encode().decode("latin-1")}
    found = proxied.get("/whoami", headers=headers).json["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", found)


def test_who_answers_with_the_request_id(client, proxied):
    """Behind nginx it is nginx; without it, the app."""
    assert "X-Request-Id" not in proxied.get("/whoami", headers=FORWARDED).headers


def test_the_app_answers_with_the_request_id_itself(client):
    """There is nobody else to do so."""
    answer = client.get("/whoami")
    assert answer.headers["X-Request-Id"] == answer.json["request_id"]
