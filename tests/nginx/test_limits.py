"""How much one visitor may ask for, and how."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from helpers.wait import wait_for


@pytest.fixture
def ask(visit):
    """Return a function that asks many times, and counts the answers by their status."""

    def ask(path, **options):
        answers = visit(path, **options)
        for status, page, headers in answers:
            if status == 429 and not options.get("together"):
                assert headers["Retry-After"] == "10"
                assert headers["X-Request-ID"] in page
        return Counter(status for status, *_ in answers)

    return ask


def test_one_address_is_slowed_down_and_another_is_not(ask):
    counts = ask("/notes", source="127.0.0.2", times=120)
    assert 21 <= counts[200] < 110
    assert counts[200] + counts[429] == 120
    assert ask("/notes", source="127.0.0.4", times=20) == {200: 20}


def test_files_do_not_count(ask):
    assert ask("/static/site.css", source="127.0.0.5", times=120) == {200: 120}


def test_a_limited_path_is_limited_for_its_methods(ask):
    def count(path, method, source="127.0.0.6"):
        return ask(path, method=method, source=source, times=10)

    assert count("/limited/login", "POST") == {200: 3, 429: 7}
    assert count("/limited/other", "PUT")[429] >= 9
    assert count("/limited/../limited/login", "POST")[429] >= 9
    assert count("//limited/%6cogin", "POST")[429] >= 9
    assert count("/limited/login", "GET", "127.0.0.8") == {200: 10}
    assert count("/unlimited", "POST", "127.0.0.9") == {200: 10}


def test_the_app_has_so_many_requests_of_one_address_in_hand(ask):
    """Streams, which stay for long, have a number of their own."""
    counts = ask("/stream", source="127.0.0.7", times=15, together=True)
    assert counts == {200: 6, 429: 9}


@pytest.mark.parametrize(("path", "source"), [("", "127.0.0.12"), ("/long", "127.0.0.13")])
def test_a_burst_of_one_address_waits_for_its_turn(visit, path, source):
    """An office, or a page of many pictures, gets all answers, and never has all of the app."""
    answers = visit(f"/moment{path}", source=source, times=20, together=True)
    assert {status for status, *_ in answers} == {200}
    assert max(int(held) for _, held, _ in answers) <= 12


def test_who_waited_in_vain_is_refused(visit):
    answers = visit("/slow", source="127.0.0.17", times=14, together=True)
    counts = Counter(status for status, *_ in answers)
    assert counts[429] >= 1
    assert counts[429] + counts[504] == 14
    assert all("A little slower" in page for status, page, _ in answers if status == 429)


@pytest.fixture
def upload(connect, prefix):
    """Return a function that begins to send a body, and gives what sends the rest."""

    def begin(source, size=20_000, kind="Content-Length: {}", path="/"):
        lines = [f"POST {prefix}{path} HTTP/1.1", "Host: shop.example.org", kind.format(size)]
        connection = connect(source)
        connection.sendall("\r\n".join([*lines, "Connection: close", "", "4\r\n"]).encode())
        return connection

    with ExitStack() as held:
        yield lambda *more, **options: held.enter_context(begin(*more, **options))


def status(connection, seconds=5.0):
    """Return the status of an answer, 0 where there is none in time."""
    connection.settimeout(seconds)
    try:
        return int(connection.recv(12)[9:])
    except TimeoutError:
        return 0


def unanswered(connections, refused):
    """Wait until so many are refused, and return the others; which of them, no one can say."""
    statuses = dict.fromkeys(connections, 0)

    def enough():
        for connection in [one for one in connections if not statuses[one]]:
            statuses[connection] = status(connection, 0.05)
        return sum(map(bool, statuses.values())) == refused

    wait_for(enough)
    assert {*statuses.values()} == {0, 429}
    return [connection for connection, status in statuses.items() if not status]


def test_half_sent_bodies_of_one_address_and_of_all_are_few(upload, visit):
    kinds = ["Content-Length: {}"] * 5 + ["Transfer-Encoding: chunked"]
    waiting = unanswered([upload("127.0.0.14", kind=kind) for kind in kinds], 2)
    small = upload("127.0.0.14", size=2000)
    small.sendall(b"x" * 1997)
    assert status(small) == 200
    assert visit("/notes", source="127.0.0.14")[0][0] == 200
    # 9 MiB of 1 MiB each
    others = [upload(f"127.0.0.{number}") for number in (15, 15, 15, 15, 16, 16)]
    waiting = unanswered([*waiting, *others], 1)
    for connection in waiting:
        connection.sendall(b"0000\r\n" + b"x" * 19_991)
    assert {status(connection) for connection in waiting} == {200}


def test_a_body_that_the_disk_does_not_take(server, site):
    folder = server.path("/body")
    folder.rename(server.path("/kept"))
    folder.touch()
    try:
        answer = site.post("/", data=b"x" * 100_000)
    finally:
        folder.unlink()
        server.path("/kept").rename(folder)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "60"
    assert "Nothing was saved" in answer.text


def test_who_is_exempt_may_ask_as_often_as_it_likes(site):
    counts = Counter(site.post("/limited/login").status_code for _ in range(60))
    assert counts == {200: 60}


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "CONNECT", "FOO"])
def test_an_unknown_method_does_not_reach_the_app(raw, prefix, method):
    answer = raw(f"{method} {prefix}/ HTTP/1.0\r\nHost: shop.example.org\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in answer


def test_headers_have_a_size(site):
    assert site.get("/", headers={"X-A": "x" * 16000}).status_code == 200
    assert site.get("/", headers={"X-A": "x" * 17000}).status_code == 400
    assert site.get("/" + "x" * 17000).status_code == 414
