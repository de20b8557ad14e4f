"""Put a constant load on a guest book, and account for every request.

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

import asyncio
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from math import ceil, inf
from typing import Self
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import h11

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
    OSError: "unreachable",  # any other
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request. Times are in seconds."""

    number: int
    method: str
    start: float  # when it was due, since the start of the load
    late: float  # delay of this client in sending it
    latency: float  # from when it was due to the last byte
    outcome: str  # the status, or an error of OUTCOMES
    release: str = ""  # the release that answered, if the answer names it

    @property
    def failed(self) -> bool:
        """Return whether a client would see a failure."""
        return not self.outcome.isdigit() or int(self.outcome) >= 400


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of some requests. Times are in seconds."""

    name: str
    seconds: float  # in which these requests were due
    requests: int
    failed: int
    p50: float
    p99: float
    longest: float

    def __str__(self) -> str:
        """Return a row of the table under HEADINGS."""
        line = f"{self.name:24} {self.seconds:7.1f} {self.requests:9} {self.failed:7}"
        return line + "".join(f"{1000 * n:9.0f}" for n in (self.p50, self.p99, self.longest))


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
    """A constant load in its own thread, within a `with` statement."""

    url: str  # URL of the site without a path: http://127.0.0.1:8080
    name: str = ""  # Host header; empty: from the URL
    rate: float = 100.0  # requests per second
    writes: float = 0.1  # share of requests that write a row
    kept: float = 0.5  # share of requests on kept connections
    form: bool = True  # whether there is a guest book; without it `writes` is 0
    timeout: float = 30.0  # seconds until an answer counts as missing
    run: str = field(default_factory=lambda: f"load-{uuid4().hex[:8]}")  # identifies its rows
    answers: list[Answer] = field(default_factory=list, init=False)
    phases: list[tuple[str, float, float]] = field(default_factory=list, init=False)
    reopened: int = field(default=0, init=False)
    repeated: int = field(default=0, init=False)

    def __enter__(self) -> Self:
        """Read the guest book's form, and start; raises the errors of that request."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname, port), 10) as first:
            self._address = first.getpeername()[:2]  # an address of the name that answers
        self.name = self.name or parts.netloc
        self._tls = any_certificate() if parts.scheme == "https" else None
        self._until = inf  # seconds of the load
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._idle: deque[Connection] = deque()
        self._random = random.Random(self.run)
        self._thread = threading.Thread(target=self._work, name=self.run)
        self._thread.start()
        self._started.wait()
        if self._error:
            self.__exit__()
        return self

    def __exit__(self, *_: object) -> None:
        """Send the requests due until now, and wait for the missing answers."""
        if not self._error:
            self._until = self.now()
        self._thread.join()
        if self._error:
            raise self._error

    def now(self) -> float:
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
        parts = [(name, self.within(begin, end), end - begin) for name, begin, end in self.phases]
        inside = {answer.number for _, answers, _ in parts for answer in answers}
        between = [answer for answer in list(self.answers) if answer.number not in inside]
        for name, answers in (("between", between), ("all", list(self.answers))):
            parts.append((name, answers, len(answers) / self.rate))
        return [summary(*part) for part in parts]

    @property
    def statement(self) -> str:
        """The SQL statement for the app's database; `rows` expects its result."""
        return f"SELECT body FROM notes WHERE body LIKE '{self.run} %'"

    def rows(self, bodies: Iterable[str]) -> Rows:
        """Compare the writes with the bodies of all notes of this run in the database."""
        stored = Counter(int(body.rpartition(" ")[2]) for body in bodies)
        writes = [answer for answer in self.answers if answer.method == "POST"]
        acknowledged = {answer.number for answer in writes if not answer.failed}
        return Rows(
            sent=len(writes),
            acknowledged=len(acknowledged),
            lost=sorted(acknowledged - stored.keys()),
            doubled=sorted(number for number, times in stored.items() if times > 1),
            unacknowledged={a.number: a.number in stored for a in writes if a.failed},
        )

    def report(self) -> str:
        """Return the table, the outcomes, and the accuracy of this client."""
        late = [answer.late for answer in self.answers]
        outcomes = ", ".join(f"{name}: {number}" for name, number in sorted(self.outcomes.items()))
        retries = f"kept connections reopened: {self.reopened}, GETs repeated: {self.repeated}"
        accuracy = f"sent late by this client: at most {1000 * max(late, default=0):.0f} ms"
        return "\n".join([HEADINGS, *map(str, self.summaries()), outcomes, retries, accuracy])

    # Implementation

    def _work(self) -> None:
        try:
            asyncio.run(self._send())
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()

    async def _send(self) -> None:
        if self.form:
            await self._read_form()
        self._zero = time.monotonic()
        self._started.set()
        async with asyncio.TaskGroup() as requests:
            for number in count():
                due = number / self.rate
                await asyncio.sleep(max(0, due - self.now()))
                if due > self._until:
                    break
                requests.create_task(self._request(number, due))
        for connection in self._idle:
            await connection.close()

    async def _read_form(self) -> None:
        """Read the form's token and cookie, which are valid for any number of notes."""
        async with asyncio.timeout(self.timeout):
            connection = await self._connect()
            response, body, _ = await connection.ask(self._message("GET", "/", keep=False))
            await connection.close()
        token = TOKEN.search(body)
        if response.status_code != 200 or not token:
            raise RuntimeError(f"{self.url}/ shows no form: {response.status_code} {body!r}")
        self._token = token[1].decode()
        self._cookie = dict(response.headers).get(b"set-cookie", b"").partition(b";")[0]

    async def _request(self, number: int, due: float) -> None:
        """Send request `number`, which was due at `due`, and record its outcome."""
        begin = self.now()
        method, path, body = "GET", PAGES[number % len(PAGES)], b""
        if self._random.random() < self.writes:
            fields = {"csrf_token": self._token, "author": "load", "body": f"{self.run} {number}"}
            method, path, body = "POST", "/notes", urlencode(fields).encode()
        keep = self._random.random() < self.kept
        message = self._message(method, path, body, keep)
        release = ""
        try:
            async with asyncio.timeout(self.timeout):
                status, content = await self._exchange(message, keep)
            outcome = str(status)
            if found := RELEASE.search(content):
                release = found[1].decode()
        except Exception as error:  # any error is an outcome
            names = (name for kind, name in OUTCOMES.items() if isinstance(error, kind))
            outcome = next(names, type(error).__name__)
        self.answers.append(
            Answer(number, method, due, begin - due, self.now() - due, outcome, release)
        )

    async def _exchange(self, message: Message, keep: bool) -> tuple[int, bytes]:
        """Return the status and the body of the answer to a message."""
        connection, used = await self._connection(keep)
        try:
            try:
                response, body, reusable = await connection.ask(message)
            except (ConnectionResetError, BrokenPipeError, ClosedError):
                if not used or connection.received or message[0].method != b"GET":
                    raise
                self.repeated += 1
                await connection.close()
                connection = await self._connect()
                response, body, reusable = await connection.ask(message)
            if keep and reusable and len(self._idle) < KEPT:
                self._idle.append(connection)
        finally:
            if connection not in self._idle:
                await connection.close()
        return response.status_code, body

    async def _connection(self, keep: bool) -> tuple[Connection, bool]:
        """Return a connection, and whether it was used before."""
        while keep and self._idle:
            connection = self._idle.popleft()
            if not connection.lost:
                return connection, True
            self.reopened += 1
            await connection.close()
        return await self._connect(), False

    async def _connect(self) -> Connection:
        named = {"ssl": self._tls, "server_hostname": self.name} if self._tls else {}
        return Connection(*await asyncio.open_connection(*self._address, **named))

    def _message(self, method: str, path: str, body: bytes = b"", keep: bool = True) -> Message:
        headers: dict[str, str | bytes] = {"Host": self.name, "User-Agent": "load"}
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


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.received = False  # whether any byte of the current answer has arrived
        self._http = h11.Connection(h11.CLIENT)

    @property
    def lost(self) -> bool:
        """Whether the server has closed the connection."""
        return self.reader.at_eof() or self.reader.exception() is not None

    async def close(self) -> None:
        """Close without a TLS shutdown, which would wait for the server's; may be called twice."""
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def ask(self, message: Message) -> tuple[h11.Response, bytes, bool]:
        """Send a message; return its answer, the body, and whether the connection can be reused.

        Raises ClosedError, CutError or the socket's own error when the connection ends before
        the answer does, and h11.RemoteProtocolError when the answer is not HTTP.
        """
        self.received = False
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self.writer.write(b"".join(map(self._http.send, message)))
        response, body = None, b""
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
        if self._http.trailing_data[0]:
            raise h11.RemoteProtocolError("more than one answer to one message")
        reusable = self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        return response, body, reusable and not self.lost

    async def _event(self) -> h11.Event:
        """Wait for the next event of the answer and return it."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self.reader.read(65536)
            self._http.receive_data(data)
            if data:
                self.received = True
                continue
            try:  # the end of the connection may end the answer
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
