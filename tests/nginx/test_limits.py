"""Limits per client and in total, and allowed HTTP methods."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from helpers.wait import wait_for


@pytest.fixture
def statuses(visit):
    """Return a function that sends requests and counts the responses by status."""

    def count(path, **options):
        answers = visit(path, **options)
        for status, page, headers in answers:
            if status == 429:
                assert headers["Retry-After"] == "10"
                assert path == "/stream" or headers["X-Request-ID"] in page
        return Counter(status for status, *_ in answers)

    return count


def test_request_rate_is_limited_per_address(statuses):
    counts = statuses("/notes", source="127.0.0.2", times=120)
    assert 21 <= counts[200] < 110
    assert counts[200] + counts[429] == 120
    assert statuses("/notes", source="127.0.0.4", times=20) == {200: 20}


def test_static_files_do_not_count(statuses):
    assert statuses("/static/site.css", source="127.0.0.5", times=120) == {200: 120}


def test_limited_path_applies_to_its_methods(statuses):
    def count(path, method, source="127.0.0.6"):
        return statuses(path, method=method, source=source, times=10)

    assert count("/limited/login", "POST") == {200: 3, 429: 7}
    assert count("/limited/other", "PUT")[429] >= 9
    assert count("/limited/../limited/login", "POST")[429] >= 9
    assert count("//limited/%6cogin", "POST")[429] >= 9
    assert count("/limited/login", "GET", "127.0.0.8") == {200: 10}
    assert count("/unlimited", "POST", "127.0.0.9") == {200: 10}


def test_streams_of_one_address_are_limited(statuses):
    """Streams have a limit of their own, since they stay open."""
    counts = statuses("/stream", source="127.0.0.7", times=15, together=True)
    assert counts == {200: 6, 429: 9}


@pytest.mark.parametrize(("path", "source"), [("", "127.0.0.12"), ("/long", "127.0.0.13")])
def test_burst_of_one_address_is_queued(visit, path, source):
    """All requests are answered, and the client never occupies all workers."""
    answers = visit(f"/moment{path}", source=source, times=20, together=True)
    assert {status for status, *_ in answers} == {200}
    assert max(int(concurrent) for _, concurrent, _ in answers) <= 12


def test_request_is_rejected_after_two_waits_in_the_queue(visit):
    answers = visit("/slow", source="127.0.0.17", times=14, together=True)
    counts = Counter(status for status, *_ in answers)
    assert counts[429] >= 1
    assert counts[429] + counts[504] == 14
    assert all("A little slower" in page for status, page, _ in answers if status == 429)


@pytest.fixture
def upload(connect, prefix):
    """Return a function that starts an upload and returns its connection."""
    with ExitStack() as connections:

        def start(source, length="Content-Length: 20000"):
            connection = connections.enter_context(connect(source))
            lines = [f"POST {prefix}/ HTTP/1.1", "Host: shop.example.org", length]
            connection.sendall("\r\n".join([*lines, "Connection: close", "", "4\r\n"]).encode())
            return connection

        yield start


def status(connection, seconds=5.0):
    """Return the status of a response, or 0 after `seconds` without one."""
    connection.settimeout(seconds)
    try:
        return int(connection.recv(12)[9:])
    except TimeoutError:
        return 0


def unanswered(connections, rejected):
    """Wait until `rejected` connections got a 429, and return the other connections."""
    statuses = dict.fromkeys(connections, 0)

    def are_rejected():
        for connection in [one for one in connections if not statuses[one]]:
            statuses[connection] = status(connection, 0.05)
        return sum(map(bool, statuses.values())) == rejected

    wait_for(are_rejected)
    assert {*statuses.values()} == {0, 429}
    return [connection for connection, status in statuses.items() if not status]


def test_incomplete_uploads_are_limited_per_address_and_in_total(upload, visit):
    lengths = ["Content-Length: 20000"] * 5 + ["Transfer-Encoding: chunked"]
    waiting = unanswered([upload("127.0.0.14", length) for length in lengths], 2)
    small = upload("127.0.0.14", "Content-Length: 2000")
    small.sendall(b"x" * 1997)
    assert status(small) == 200
    assert visit("/notes", source="127.0.0.14")[0][0] == 200
    # nginx_upload_space of 9 MiB allows 9 uploads of 1 MiB.
    others = [upload(f"127.0.0.{number}") for number in (15, 15, 15, 15, 16, 16)]
    waiting = unanswered([*waiting, *others], 1)
    for connection in waiting:
        connection.sendall(b"0000\r\n" + b"x" * 19_991)
    assert {status(connection) for connection in waiting} == {200}


def test_body_that_cannot_be_stored_gets_a_503(server, site):
    folder = server.path("/body")
    folder.rename(server.path("/moved"))
    folder.touch()
    try:
        answer = site.post("/", data=b"x" * 100_000)
    finally:
        folder.unlink()
        server.path("/moved").rename(folder)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "60"
    assert "Nothing was saved" in answer.text


def test_exempt_address_has_no_limits(site):
    counts = Counter(site.post("/limited/login").status_code for _ in range(60))
    assert counts == {200: 60}


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "CONNECT", "FOO"])
def test_unknown_method_is_rejected(raw, prefix, method):
    answer = raw(f"{method} {prefix}/ HTTP/1.0\r\nHost: shop.example.org\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in answer
