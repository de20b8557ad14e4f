"""Forwarded headers of a trusted load balancer."""

from __future__ import annotations

import json
from collections import Counter

import pytest

pytestmark = pytest.mark.parametrize("server", ["balanced"], indirect=True, scope="session")

BALANCER = {
    "X-Forwarded-For": "198.51.100.1, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Request-ID": "given-by-the-balancer",
}


def test_client_address_is_passed_on_and_logged(site, headers, logged):
    answer = site.get("/", headers=BALANCER)
    seen = headers(answer.json())
    # The client may have forged all addresses before the last one.
    assert seen["x-forwarded-for"] == "203.0.113.9"
    assert answer.headers["X-Request-ID"] == seen["x-request-id"] == "given-by-the-balancer"
    entry = logged("given-by-the-balancer")
    assert (entry["remote_addr"], entry["scheme"]) == ("203.0.113.9", "https")


def test_client_address_behind_several_load_balancers(site, headers):
    chain = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9, 127.0.0.1"}
    seen = headers(site.get("/", headers=BALANCER | chain).json())
    assert seen["x-forwarded-for"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "https://shop.example.org"),
        ({"X-Forwarded-Port": "8443"}, "https://shop.example.org:8443"),
        ({"X-Forwarded-Host": "eu.shop.example.org:8443"}, "https://eu.shop.example.org:8443"),
        ({"X-Forwarded-Host": "evilshop.example.org"}, "https://shop.example.org"),
        ({"X-Forwarded-Host": "shop.example.org.evil.example"}, "https://shop.example.org"),
        ({"X-Forwarded-Proto": "http"}, "http://shop.example.org"),
        ({"X-Forwarded-Proto": "gopher", "X-Forwarded-Port": "x"}, "http://shop.example.org"),
    ],
)
def test_links_use_the_forwarded_scheme_host_and_port(site, app_url, more, expected):
    seen = site.get("/notes", headers=BALANCER | more).json()
    assert app_url(seen) == f"{expected}/shop/notes"


@pytest.mark.parametrize("host", ["", "Host: 10.0.0.7\r\n", "Host: [fd00::7]:80\r\n"])
def test_health_check_by_ip_address(raw, prefix, headers, host, connect):
    def get(path, source=""):
        request = f"GET {prefix}{path} HTTP/1.0\r\n{host}\r\n".encode()
        return raw(request, lambda: connect(source))

    answer = get("/healthz")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    seen = headers(json.loads(answer.partition(b"\r\n\r\n")[2]))
    assert (seen["host"], seen["x-forwarded-proto"]) == ("shop.example.org", "https")
    assert get("/notes") == b""
    assert get("/healthz", "127.0.0.44") == b""


def test_request_id_with_invalid_characters_is_replaced(site):
    answer = site.get("/", headers=BALANCER | {"X-Request-ID": 'a" b\t{}'})
    assert len(answer.headers["X-Request-ID"]) == 32


@pytest.fixture
def statuses(visit):
    """Return a function that counts the responses to requests of a client by status."""

    def count(client, times=1):
        forwarded = {"X-Forwarded-For": client}
        answers = visit("/notes", forwarded, source="127.0.0.1", times=times)
        return Counter(status for status, *_ in answers)

    return count


def test_ipv6_network_counts_as_one_client(statuses):
    assert statuses("2001:db8:0:1::1", 120)[429] > 0
    assert statuses("2001:db8:0:1::2", 5)[429] > 0
    assert statuses("2001:db8:0:2::1", 20) == {200: 20}


@pytest.mark.parametrize(
    ("folder", "banned", "other"),
    [
        ("198.51.100.7", "198.51.100.7", "198.51.100.8"),
        ("2001:db8:1:2:", "2001:db8:1:2::9", "2001:db8:1:3::9"),
        ("2001:db8:1:2:", "2001:db8:1:2:3:4:5:6", "2001:db8:1::2:3:4"),
        ("2001:db8:1::", "2001:db8:1::9", "2001:db8:1:2::9"),
        ("2001:db8:1:0:", "2001:db8:1:0:3:4:5:6", "2001:db8:1:1:3:4:5:6"),
    ],
)
def test_banned_client_gets_a_403(server, statuses, folder, banned, other):
    """An IPv6 ban is for a /64, written as in nginx's $remote_addr."""
    ban = server.path(f"/run/flaskstack/banned/shop/{folder}")
    ban.mkdir(parents=True)
    try:
        assert (statuses(banned), statuses(other)) == ({403: 1}, {200: 1})
    finally:
        ban.rmdir()
    assert statuses(banned) == {200: 1}
