"""Put a constant load on a guest book, and account for every request.

    python tests/helpers/load.py http://127.0.0.1:8080 --rate 100 --seconds 30

Open loop: request n is due n / rate seconds after the first, whether or not earlier ones were
answered. Its latency counts from that moment. So if a site stalls for a second, all requests due
in that second show it. Times are in seconds; in tables, latencies are in milliseconds.

Some requests write a numbered note. Afterwards the numbers are compared with the rows in the
database: acknowledged but missing is lost, present more than once is doubled.

Requests use new connections and kept ones in turn. Retries are limited to those of HTTP (RFC 9112,
9.3.1), and are counted. A kept connection found closed before anything was sent is replaced
("reopened"). A GET on a kept connection that closes without a byte of an answer is sent once more
("repeated"); its latency counts from the first try. A POST fails in that case, because the server
may have handled it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import socket
import ssl
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf
from typing import Self
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import h11

PATIENCE = 30.0  # seconds until an answer counts as missing
KEPT = 8  # limit of kept connections; each is used several times per second
PAGES = ("/whoami", "/", "/whoami", "/static/style.css")  # requested in turn
TOKEN = re.compile(rb'name="csrf_token"[^>]* value="([^"]+)"')
RELEASE = re.compile(rb'"release": ?"([^"]+)"')  # /whoami returns the active release


Message = tuple[h11.Request, h11.Data, h11.EndOfMessage]


class ClosedError(ConnectionError):
    """The server closed the connection without a byte of an answer."""


class CutError(ConnectionError):
    """The server closed the connection in the middle of an answer."""


OUTCOMES = {
    ConnectionRefusedError: "refused",
    ConnectionResetError: "reset",
    BrokenPipeError: "reset",
    ClosedError: "closed",
    CutError: "cut",
    TimeoutError: "timeout",
    h11.RemoteProtocolError: "garbled",
}


@dataclass(frozen=True, slots=True)
class Response:
    """The server's answer."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes
    keep: bool  # whether the connection can be used again


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request. Times in seconds."""

    number: int
    method: str
    start: float  # when it was due, since the start of the load
    late: float  # delay of this client in sending it
    latency: float  # from when it was due to the last byte
    outcome: str  # the status, or the error: refused, reset, closed, cut, timeout, garbled
    release: str = ""  # the release that answered, if the answer names it

    @property
    def failed(self) -> bool:
        """Return whether a client would see a failure."""
        return not self.outcome.isdigit() or int(self.outcome) >= 400


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of some requests. Times in seconds."""

    name: str
    seconds: float  # in which these requests were due
    requests: int
    failed: int
    p50: float
    p99: float
    longest: float

    def __str__(self) -> str:
        """Return a row of the table under HEADINGS."""
        numbers = (self.p50, self.p99, self.longest)
        line = f"{self.name:24} {self.seconds:7.1f} {self.requests:9} {self.failed:7}"
        return line + "".join(f"{1000 * number:9.0f}" for number in numbers)


HEADINGS = " " * 24 + " seconds  requests  failed   p50 ms   p99 ms  longest"


@dataclass(frozen=True, slots=True)
class Rows:
    """The outcome of the writes, by number."""

    sent: int
    acknowledged: int
    lost: list[int]  # acknowledged, but not in the database
    doubled: list[int]  # more than once in the database
    unacknowledged: dict[int, bool]  # sent without a valid answer, and whether the row exists


@dataclass
class Load:
    """A constant load, in its own thread, from `start` (or `with`) to `stop`."""

    url: str  # URL of the site without a path: http://127.0.0.1:8080
    name: str = ""  # Host header; empty: from the URL
    rate: float = 100.0  # requests per second
    writes: float = 0.1  # share of requests that write a row
    kept: float = 0.5  # share of requests on kept connections
    form: bool = True  # whether there is a guest book; without it `writes` is 0
    pages: tuple[str, ...] = PAGES
    patience: float = PATIENCE  # seconds
    run: str = field(
        default_factory=lambda: f"load-{uuid4().hex[:8]}"
    )  # identifies the rows of this run
    answers: list[Answer] = field(default_factory=list, init=False)
    phases: list[tuple[str, float, float]] = field(default_factory=list, init=False)
    reopened: int = field(default=0, init=False)
    repeated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Prepare; requests start with `start`."""
        self._until = inf  # seconds of the load
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=self.run)
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._chance = random.Random(self.run)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> Self:
        """Read the guest book's form, and start the load; raises the errors of that request."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname, port), 10) as first:
            self._address = first.getpeername()[:2]  # an address of the name that answers
        self.name = self.name or parts.netloc
        self._tls = any_certificate() if parts.scheme == "https" else None
        self._thread.start()
        self._begun.wait()
        if self._error:
            self.stop()
        return self

    def stop(self) -> None:
        """Send the requests due until now, and wait for the missing answers."""
        if not self._error:
            self._until = self.now()
        self._thread.join()
        if self._error:
            raise self._error

    def now(self) -> float:
        """Return the seconds since the start of the load."""
        return time.monotonic() - self._zero

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count the requests due within this context as a phase of this name."""
        begin = self.now()
        try:
            yield
        finally:
            self.phases.append((phase, begin, self.now()))

    # Results

    @property
    def failed(self) -> list[Answer]:
        """The requests that a client would see fail."""
        return [answer for answer in list(self.answers) if answer.failed]

    @property
    def outcomes(self) -> Counter[str]:
        """The number of requests by outcome."""
        return Counter(f"{answer.method} {answer.outcome}" for answer in list(self.answers))

    def within(self, begin: float, end: float) -> list[Answer]:
        """Return the requests due from `begin` to `end`, in seconds of the load."""
        return [answer for answer in list(self.answers) if begin <= answer.start < end]

    def summaries(self) -> list[Summary]:
        """Return the statistics of each phase, of the time between phases, and of everything."""
        found, inside = [], set()
        for name, begin, end in self.phases:
            answers = self.within(begin, end)
            inside.update(answer.number for answer in answers)
            found.append(summary(name, answers, end - begin))
        between = [answer for answer in list(self.answers) if answer.number not in inside]
        found.append(summary("between", between, len(between) / self.rate))
        found.append(summary("all", list(self.answers), len(self.answers) / self.rate))
        return found

    @property
    def statement(self) -> str:
        """The SQL statement for the app's database; `rows` expects its result."""
        return f"SELECT body FROM notes WHERE body LIKE '{self.run} %'"

    def rows(self, bodies: Iterable[str]) -> Rows:
        """Compare the writes with the bodies of all notes of this run in the database."""
        stored = Counter(int(body.rpartition(" ")[2]) for body in bodies)
        writes = [answer for answer in self.answers if answer.method == "POST"]
        good = {answer.number for answer in writes if not answer.failed}
        return Rows(
            sent=len(writes),
            acknowledged=len(good),
            lost=sorted(good - stored.keys()),
            doubled=sorted(number for number, times in stored.items() if times > 1),
            unacknowledged={a.number: a.number in stored for a in writes if a.failed},
        )

    def report(self) -> str:
        """Return the table, the outcomes, and the accuracy of this client."""
        late = [answer.late for answer in self.answers]
        outcomes = ", ".join(f"{name}: {count}" for name, count in sorted(self.outcomes.items()))
        return "\n".join(
            [
                HEADINGS,
                *map(str, self.summaries()),
                outcomes,
                f"kept connections reopened: {self.reopened}, GETs repeated: {self.repeated}",
                f"sent late by this client: p99 {1000 * percentile(late, 99):.0f} ms,"
                f" at most {1000 * max(late, default=0):.0f} ms",
            ]
        )

    # Implementation

    def _work(self) -> None:
        try:
            asyncio.run(self._send())
        except BaseException as error:
            self._error = error
        finally:
            self._begun.set()

    async def _send(self) -> None:
        if self.form:
            await self._read_form()
        out: set[asyncio.Task[None]] = set()
        self._zero = time.monotonic()
        self._begun.set()
        for number in count():
            due = number / self.rate
            if (early := due - self.now()) > 0:
                await asyncio.sleep(early)
            if due > self._until:
                break
            task = asyncio.create_task(self._request(number, due))
            out.add(task)
            task.add_done_callback(out.discard)
        await asyncio.gather(*out)
        # A clean TLS shutdown would wait for the server's.
        for connection in self._open:
            connection.abort()
        await asyncio.gather(*(connection.gone for connection in self._open))

    async def _read_form(self) -> None:
        """Read the form's token and cookie, which are valid for any number of notes."""
        async with asyncio.timeout(self.patience):
            connection = await self._connect()
            response = await connection.ask(self._message("GET", "/", keep=False))
            connection.close()
        token = TOKEN.search(response.body)
        if response.status != 200 or not token:
            raise RuntimeError(f"{self.url}/ shows no form: {response.status} {response.body!r}")
        self._token = token.group(1).decode()
        self._cookie = response.headers.get("set-cookie", "").partition(";")[0]

    async def _request(self, number: int, due: float) -> None:
        """Send request `number`, which was due at `due`, and record its outcome."""
        begin = self.now()
        method, path, body = "GET", self.pages[number % len(self.pages)], b""
        if self._chance.random() < self.writes:
            fields = {"csrf_token": self._token, "author": "load", "body": f"{self.run} {number}"}
            method, path, body = "POST", "/notes", urlencode(fields).encode()
        keep = self._chance.random() < self.kept
        message = self._message(method, path, body, keep)
        release = ""
        try:
            async with asyncio.timeout(self.patience):
                response = await self._exchange(message, keep, again=method == "GET")
            outcome = str(response.status)
            if found := RELEASE.search(response.body):
                release = found.group(1).decode()
        except Exception as error:  # any error is an outcome
            outcome = outcome_of(error)
        self.answers.append(
            Answer(number, method, due, begin - due, self.now() - due, outcome, release)
        )

    async def _exchange(self, message: Message, keep: bool, again: bool) -> Response:
        """Return the answer to a message; `again` allows sending it twice."""
        connection, used = await self._connection(keep)
        try:
            try:
                response = await connection.ask(message)
            except (ConnectionResetError, BrokenPipeError, ClosedError):
                if not (used and again and not connection.received):
                    raise
                self.repeated += 1
                connection = await self._connect()
                response = await connection.ask(message)
            if keep and response.keep and not connection.lost and len(self._idle) < KEPT:
                self._idle.append(connection)
        finally:
            if connection not in self._idle:
                connection.close()
        return response

    async def _connection(self, keep: bool) -> tuple[Connection, bool]:
        """Return a connection, and whether it was used before."""
        while keep and self._idle:
            connection = self._idle.popleft()
            if not connection.lost:
                return connection, True
            self.reopened += 1
        return await self._connect(), False

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        named = {"ssl": self._tls, "server_hostname": self.name} if self._tls else {}
        _, connection = await loop.create_connection(Connection, *self._address, **named)
        self._open.add(connection)
        connection.gone.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    def _message(self, method: str, path: str, body: bytes = b"", keep: bool = True) -> Message:
        headers = {"Host": self.name, "User-Agent": "load"}
        if not keep:
            headers["Connection"] = "close"
        if method == "POST":
            scheme = "https" if self._tls else "http"
            headers |= {
                "Cookie": self._cookie,
                "Referer": f"{scheme}://{self.name}/",  # required for forms over https
                "Content-Type": "application/x-www-form-urlencoded",
                "Content-Length": str(len(body)),
            }
        request = h11.Request(method=method, target=path, headers=list(headers.items()))
        return request, h11.Data(data=body), h11.EndOfMessage()


class Connection(asyncio.Protocol):
    """A connection with one message at a time."""

    def __init__(self) -> None:
        """Start without received data."""
        self.received = False  # whether any byte of the current answer has arrived
        self.lost = False
        self.gone = asyncio.get_running_loop().create_future()
        self._error: Exception | None = None
        self._news: asyncio.Future[None] | None = None
        self._http = h11.Connection(h11.CLIENT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Wake the waiting request."""
        self.received = True
        self._http.receive_data(data)
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Wake the waiting request; without an error the server closed the connection cleanly."""
        self.lost, self._error = True, error
        self.gone.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._news and not self._news.done():
            self._news.set_result(None)

    def close(self) -> None:
        """Close; may be called twice."""
        # In Python 3.11 a TLS transport that is closed twice cannot be aborted.
        if not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting."""
        self._transport.abort()

    async def ask(self, message: Message) -> Response:
        """Send a message and return the answer to it.

        Raises ClosedError, CutError or the socket's own error when the connection ends before
        the answer does, and h11.RemoteProtocolError when the answer is not HTTP.
        """
        self.received = False
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._transport.write(b"".join(map(self._http.send, message)))
        response, body = None, b""
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
        if self._http.trailing_data[0]:
            raise h11.RemoteProtocolError("more than one answer to one message")
        headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
        keep = self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        return Response(response.status_code, headers, body, keep and not self.lost)

    async def _event(self) -> h11.Event:
        """Wait for the next event of the answer and return it."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if not self.lost:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
                continue
            if self._error:
                raise self._error
            try:  # the end of the connection may end the answer
                self._http.receive_data(b"")
                return self._http.next_event()
            except h11.RemoteProtocolError:
                raise (CutError if self.received else ClosedError)() from None
        return event


def any_certificate() -> ssl.SSLContext:
    """Return an SSL context that accepts all certificates, as they change under load."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def outcome_of(error: BaseException) -> str:
    """Return the name of an error."""
    for kind, name in OUTCOMES.items():
        if isinstance(error, kind):
            return name
    return type(error).__name__


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that `percent` of all values do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def summary(name: str, answers: list[Answer], seconds: float) -> Summary:
    """Return the statistics of answers that were due within some seconds."""
    latencies = [answer.latency for answer in answers]
    return Summary(
        name,
        seconds,
        len(answers),
        sum(answer.failed for answer in answers),
        percentile(latencies, 50),
        percentile(latencies, 99),
        max(latencies, default=0.0),
    )


def main() -> int:
    """Run from the command line; return 1 if a request failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="of the site, such as http://127.0.0.1:8080")
    parser.add_argument("--name", default="", help="Host header (default: as in the URL)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long")
    parser.add_argument("--writes", type=float, default=0.1, help="share that writes a row, 0 to 1")
    parser.add_argument("--kept", type=float, default=0.5, help="share over kept connections")
    given = vars(parser.parse_args())
    seconds = given.pop("seconds")
    load = Load(**given)
    with load:
        time.sleep(seconds)
    print(load.report())
    acknowledged = sum(a.method == "POST" and not a.failed for a in load.answers)
    print(f"rows acknowledged: {acknowledged}; compare with: {load.statement}")
    return 1 if load.failed else 0


if __name__ == "__main__":
    sys.exit(main())
