"""How much one visitor may ask for, and how."""

from __future__ import annotations

from collections import Counter

import pytest


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


def test_who_is_exempt_may_ask_as_often_as_it_likes(site):
    counts = Counter(site.post("/limited/login").status_code for _ in range(60))
    assert counts == {200: 60}


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "CONNECT", "FOO"])
def test_an_unknown_method_does_not_reach_the_app(raw, prefix, method):
    answer = raw(f"{method} {prefix}/ HTTP/1.0\r\nHost: shop.example.org\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in answer


def test_headers_have_a_size(site):
    assert site.get("/", headers={"X-A": "x" * 8000}).status_code == 200
    assert site.get("/", headers={"X-A": "x" * 9000}).status_code == 400
    assert site.get("/" + "x" * 9000).status_code == 414


def test_a_body_that_finds_no_room_is_refused_for_now(site, server):
    """What nginx itself cannot do, such as on a full disk, is no 500 of the app's."""
    folder = server.path("/body")
    away = folder.rename(server.path("/away"))
    folder.touch()
    try:
        answer = site.post("/notes", data=b"x" * 200_000)
    finally:
        folder.unlink()
        away.rename(folder)
    assert answer.status_code == 503
    assert "Back in a moment" in answer.text
    assert answer.headers["Retry-After"] == "5"
