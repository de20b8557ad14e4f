"""The load client counts correctly, whatever the server does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qs

import pytest

from helpers.certs import Authority
from helpers.load import Load, percentile
from helpers.wait import wait_for

PAGE = '<input type="hidden" name="csrf_token" value="a-token"> {"release": "r1"}'
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # close with a reset
RAW = {  # raw answers; the connection stays open only after `chunked`
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
    "closed": b"",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "twice": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 2,
    "garbled": b"hello\r\n\r\n",
}


@dataclass
class Server:
    """A guest book that handles its n-th request according to `plan(n, used)` and counts it.

    `used` is whether the connection has carried a request before. The plan names an answer of RAW,
    or `good`, `500`, `reset`, `timeout`, `hang_up`, `lost` or `doubled` (the row).
    """

    plan: Callable[[int, bool], str] = lambda number, used: "good"
    page: str = PAGE
    stalled: float = 0.0  # no response before this value of time.monotonic()
    rows: list[str] = field(default_factory=list)
    did: Counter = field(default_factory=Counter)

    def __enter__(self):
        self.numbers, self.ready = count(), threading.Event()
        self.thread = threading.Thread(target=asyncio.run, args=[self.main()])
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join()

    async def main(self):
        self.loop, self.ended, self.connections = asyncio.get_running_loop(), asyncio.Event(), set()
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.ended.wait()
        self.server.close()
        for task in self.connections:
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    @contextlib.contextmanager
    def away(self):
        """Refuse new connections and keep open ones."""
        self.loop.call_soon_threadsafe(self.server.close)
        wait_for(lambda: not self.server.is_serving())
        yield
        again = asyncio.start_server(self.serve, "127.0.0.1", self.port)
        self.server = asyncio.run_coroutine_threadsafe(again, self.loop).result()

    async def serve(self, reader, writer):
        """Answer the requests of one connection."""
        self.connections.add(asyncio.current_task())
        try:
            for number in count():
                if not await self.answer(reader, writer, number > 0):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections.discard(asyncio.current_task())
            writer.close()

    async def answer(self, reader, writer, used):
        """Answer one request; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method = head.split(" ")[0]
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
        body = parse_qs((await reader.readexactly(length)).decode())
        number = next(self.numbers)  # 0: the client reads the form
        does = self.plan(number, used) if number else "good"
        while time.monotonic() < self.stalled:
            await asyncio.sleep(0.01)
        self.did[f"{method} {does}"] += number > 0
        if method == "POST":
            assert body["csrf_token"] == ["a-token"]
            assert "Cookie: session=1" in head
            self.rows += body["body"] * {"lost": 0, "500": 0, "doubled": 2}.get(does, 1)
        if does in RAW:
            writer.write(RAW[does])
            return does == "chunked"
        if does == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            return False
        if does == "timeout":
            await asyncio.sleep(60)
        status = "500 Oh" if does == "500" else "303 See Other" if method == "POST" else "200 OK"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(self.page)}\r\n"
            f"Set-Cookie: session=1; Path=/\r\n\r\n{self.page}".encode()
        )
        await writer.drain()
        return does != "hang_up" and "Connection: close" not in head


@pytest.fixture
def under_load():
    """Return a function that runs a number of requests against a server with a plan."""

    def under_load(plan, requests=100, **options):
        with Server(plan) as server:
            url = f"http://127.0.0.1:{server.port}"
            options = {"rate": 200, "writes": 0.3, "timeout": 20, "run": "load-test"} | options
            with Load(url, **options) as load:
                wait_for(lambda: load.now() * load.rate > requests)
        return server, load

    return under_load


def test_all_requests_succeed_with_a_good_server(under_load):
    server, load = under_load(lambda number, used: "chunked" if number % 3 == 0 else "good")
    assert load.failed == []
    assert len(load.answers) == server.did.total() >= 100
    assert {answer.number for answer in load.answers} == set(range(len(load.answers)))
    assert load.rows(server.rows).sent == len(server.rows) > 10
    assert (load.repeated, load.reopened) == (0, 0)
    assert {answer.release for answer in load.answers} == {"r1", ""}  # chunked responses have none


@pytest.mark.parametrize("bad", ["500", "closed", "cut", "reset", "timeout", "garbled", "twice"])
def test_failures_are_counted_correctly(under_load, bad):
    server, load = under_load(
        lambda number, used: bad if number % 7 == 3 else "good", kept=0, timeout=2
    )
    assert server.did[f"GET {bad}"] > 0 < server.did[f"POST {bad}"]
    outcome = "garbled" if bad == "twice" else bad
    assert load.outcomes == Counter(
        {
            "GET 200": server.did["GET good"],
            "POST 303": server.did["POST good"],
            f"GET {outcome}": server.did[f"GET {bad}"],
            f"POST {outcome}": server.did[f"POST {bad}"],
        }
    )
    assert len(load.failed) == server.did[f"GET {bad}"] + server.did[f"POST {bad}"]


@pytest.mark.parametrize("bad", ["closed", "reset"])
def test_only_get_on_a_used_connection_is_retried(under_load, bad):
    def plan(number, used):
        return bad if used and number % 5 == 0 else "good"

    server, load = under_load(plan, kept=1)
    assert load.repeated == server.did[f"GET {bad}"] > 0
    assert load.outcomes[f"POST {bad}"] == server.did[f"POST {bad}"] > 0
    assert len(load.failed) == server.did[f"POST {bad}"]
    assert len(load.answers) == server.did.total() - load.repeated


class Late(Load):
    """A client that writes to a closed connection before it notices, as happens with TLS."""

    async def _connection(self, keep):
        connection, used = await super()._connection(keep)
        if used:
            descriptor = connection.writer.get_extra_info("socket").fileno()
            events = select.poll()
            events.register(descriptor, select.POLLRDHUP)
            os.write(descriptor, b"GET / HTTP/1.1\r\n\r\n")
            assert events.poll(5000), "the server did not close the connection"
            os.write(descriptor, b"too late")
            events.modify(descriptor, 0)
            assert events.poll(5000), "no reset after a write to the closed connection"
        return connection, used


def test_get_that_fails_on_a_closed_connection_is_retried():
    with (
        Server(lambda number, used: "closed" if used else "good") as server,
        Late(f"http://127.0.0.1:{server.port}", kept=1, run="load-test") as load,
    ):
        wait_for(lambda: load.outcomes["POST reset"] > 2)
    assert {answer.method for answer in load.failed} == {"POST"}
    assert load.repeated > 2


class Page(BaseHTTPRequestHandler):
    """Answer, and keep the connection until the load has ended."""

    ended = threading.Event()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.ended.wait(10)

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def safe_url(tmp_path):
    """Return the https URL of a server of Page."""
    pair = Authority().certify("localhost")
    (tmp_path / "pair.pem").write_text(pair.key + pair.chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pair.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_all_tls_connections_are_closed(safe_url):
    before = len(os.listdir("/proc/self/fd"))
    with Load(safe_url, writes=0, kept=0, form=False) as load:
        wait_for(lambda: len(load.answers) > 20)
    Page.ended.set()
    assert load.outcomes.keys() == {"GET 200"}
    wait_for(lambda: len(os.listdir("/proc/self/fd")) == before)
    gc.collect()  # a warning about an unclosed connection fails the test


def test_incomplete_response_is_not_retried(under_load):
    server, load = under_load(lambda number, used: "cut" if used else "good", kept=1, writes=0)
    assert load.repeated == 0
    assert load.outcomes["GET cut"] == server.did["GET cut"] > 0


def test_closed_connection_is_reopened(under_load):
    server, load = under_load(lambda number, used: "hang_up", kept=1, writes=0)
    assert load.failed == []
    assert load.reopened > 10
    assert len(load.answers) == server.did.total()  # without those that were retried


def test_unavailable_server_refuses_connections():
    with Server() as server, Load(f"http://127.0.0.1:{server.port}", rate=200, kept=0) as load:
        wait_for(lambda: len(load.answers) > 20)
        with server.away(), load.during("away"):
            begin = load.now()
            wait_for(lambda: load.now() > begin + 0.2)
        good = len(load.answers)
        wait_for(lambda: len(load.answers) > good + 20)
    away, between, _ = load.summaries()
    assert away.failed >= away.requests - 2 > 20  # a request at either end may succeed
    assert away.failed + between.failed == len(load.failed)
    # A closing listener resets connections that it has not accepted.
    assert {answer.outcome for answer in load.failed} <= {"refused", "reset"}
    assert load.outcomes["GET refused"] > 20
    assert between.requests == len(load.answers) - away.requests


def test_stall_delays_every_request_due_during_it():
    with Server() as server, Load(f"http://127.0.0.1:{server.port}", rate=200) as load:
        wait_for(lambda: len(load.answers) > 20)
        begin, server.stalled = load.now(), time.monotonic() + 0.5
        wait_for(lambda: load.now() > begin + 0.6)
    assert load.failed == []
    due = load.within(begin + 0.02, begin + 0.48)
    assert len(due) == pytest.approx(92, abs=2)
    for answer in due:
        assert answer.latency > begin + 0.48 - answer.start


def test_lost_and_duplicate_rows_are_found(under_load):
    def plan(number, used):
        return {3: "lost", 5: "doubled", 7: "500", 9: "closed"}.get(number % 20, "good")

    server, load = under_load(plan, requests=150, writes=1, kept=0)
    rows, did = load.rows(server.rows), server.did
    assert rows.sent == did.total()
    assert rows.acknowledged == did["POST good"] + did["POST lost"] + did["POST doubled"]
    assert len(rows.lost) == did["POST lost"] > 0
    assert len(rows.doubled) == did["POST doubled"] > 0
    assert list(rows.unacknowledged.values()).count(False) == did["POST 500"] > 0
    assert list(rows.unacknowledged.values()).count(True) == did["POST closed"] > 0
    assert set(rows.lost).isdisjoint(rows.doubled)


def test_page_without_a_form_is_rejected():
    with Server(page="nothing here") as server:
        load = Load(f"http://127.0.0.1:{server.port}")
        with pytest.raises(RuntimeError, match="shows no form"), load:
            pass


def test_percentiles_are_observed_values():
    assert percentile([], 99) == 0
    assert percentile([5], 50) == 5
    assert percentile(range(1, 201), 50) == 100
    assert percentile(range(1, 201), 99) == 198
    assert percentile(range(1, 11), 99) == 10
