"""Requests wait for an app that is busy, however many they are."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

MANY = 900  # Debian's own settings break off at 384 for each of two workers
ASK = b"GET %s/stream HTTP/1.1\r\nHost: shop.example.org\r\nConnection: close\r\n\r\n"


def test_many_requests_are_held_at_a_time(connect, prefix):
    with ExitStack() as held:
        connections = [held.enter_context(connect(30)) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(ASK % prefix.encode())
        answers = Counter(connection.recv(12) for connection in connections)
    assert answers == {b"HTTP/1.1 200": MANY}
