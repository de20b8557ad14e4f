"""Requests that an attacker would send to a site, and their results.

Attacks are written to a socket as bytes, since most client libraries refuse to send them.
A marker in the URL identifies each attack in the logs; a smuggled request is for /smuggled-….
ATTACKS has all that the role's templates must stop, and one of each kind that nginx itself rejects.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from helpers.clients import journal, json_lines, tls

EVIL = "evil.example"
FORGED_ADDRESS = "203.0.113.66"
TIMEOUT = 5  # seconds
SECOND_ANSWER = 0.7  # seconds to wait for a second answer to one request
CLOSED, SILENT = "closed", "no answer"
REJECTED = ("400", "403", "404", "405", "413", "414", "421", "431", "501", CLOSED)
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})", re.MULTILINE)
CHUNKED = "Transfer-Encoding: chunked"
CLOSE = "Connection: close"
POST = "POST /MARK HTTP/1.1"
ECHO = "GET /whoami?MARK HTTP/1.1"


@dataclass(frozen=True)
class Target:
    """A site to attack."""

    address: str
    name: str  # one of its names
    ca: str  # certificate file to verify the site with


@dataclass(frozen=True)
class Attack:
    """A request and its expected result."""

    kind: str
    name: str
    data: bytes  # NAME and MARK are replaced
    answers: tuple[str, ...] = REJECTED  # the first answer must be one of these
    reaches: bool = False  # whether the app may receive it, as a normal request
    never: tuple[str, ...] = ()  # strings that no answer may contain
    always: tuple[str, ...] = ()  # strings that the answer must contain
    over: str = "https"  # or http
    then: bytes = b""  # sent after a pause


@dataclass
class Result:
    """The result of an attack."""

    attack: Attack
    mark: str
    answers: list[str]
    text: str
    reached: list[str] = field(default_factory=list)  # requests in the app's log

    @property
    def problems(self) -> list[str]:
        """Return the differences from the expected result."""
        wrong = []
        if self.answers[0] not in self.attack.answers:
            wrong.append(f"answered {self.answers[0]}, not {' or '.join(self.attack.answers)}")
        if len(self.answers) > 1:
            wrong.append(f"one request, {len(self.answers)} answers")
        if self.reached and not self.attack.reaches:
            wrong.append(f"reached the app: {self.reached}")
        if any("smuggled" in request for request in self.reached):
            wrong.append(f"a request was smuggled: {self.reached}")
        wrong += [f"the answer has {word}" for word in self.attack.never if word in self.text]
        wrong += [
            f"the answer lacks {word}" for word in self.attack.always if word not in self.text
        ]
        return wrong


def request(
    *headers: str, line: str = "GET /MARK HTTP/1.1", body: str = "", host: str = "NAME"
) -> bytes:
    """Return a request with these headers after Host."""
    first = [line, f"Host: {host}"] if host else [line]
    return ("\r\n".join([*first, *headers, "", ""]) + body).encode("latin-1")


# A request to hide in a body.
INNER = "GET /smuggled-MARK HTTP/1.1\r\nHost: NAME\r\nX-Ignore: x"


def _smuggling() -> Iterator[Attack]:
    """Yield one request of each kind of ambiguous framing, which nginx itself rejects."""
    hidden = "0\r\n\r\n" + INNER + "\r\n\r\n"
    both = f"Content-Length: {len(hidden) + 40}"
    for name, headers, body in (
        ("CL.TE", (both, CHUNKED), hidden),
        ("TE.TE, the second unknown", (CHUNKED, "Transfer-Encoding: cow"), hidden),
        ("a space before the colon", ("Transfer-Encoding : chunked", both), hidden),
        ("folded onto another header", ("X-A: b", f" {CHUNKED}", "Content-Length: 0"), ""),
        ("two Content-Lengths", ("Content-Length: 0", "Content-Length: 44"), INNER),
        ("a NUL in a header", ("X-A: b\0c",), ""),
    ):
        yield Attack("smuggling", name, request(*headers, line=POST, body=body))
    # The templates decide which headers and bodies of a valid request reach the app.
    length = len(INNER.replace("MARK", "0" * 12).replace("NAME", "localhost"))
    whole = request(f"Content-Length: {length}", CLOSE, line=ECHO, body=INNER)
    yield Attack("smuggling", "a GET with a request as its body", whole, ("200",), reaches=True)
    listed = "Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Request-ID"
    data, always = request(listed, line=ECHO), ('"scheme":"https"',)
    yield Attack("smuggling", "proxy headers in Connection", data, ("200",), True, always=always)


def _paths() -> Iterator[Attack]:
    never = ("root:x:", "[project]", "from flask", "SECRET")
    for path in (
        "/static../__init__.py",
        "/static/../../../../../../etc/passwd",
        "/static/%2e%2e%2f%2e%2e%2fpyproject.toml",
        "/static/%252e%252e/pyproject.toml",
        "/static/page.js%00.css",
        "/.git/config",
        "/static/.env",
    ):
        data = request(CLOSE, line=f"GET {path}?MARK HTTP/1.1")
        yield Attack("path", path, data, reaches=True, never=never)
    path = "/.well-known/acme-challenge/..%2f..%2fa"
    data = request(CLOSE, line=f"GET {path}?MARK HTTP/1.1")
    yield Attack("path", path, data, (*REJECTED, "308"), never=never, over="http")


def _forged() -> Iterator[Attack]:
    never = (EVIL, FORGED_ADDRESS, "6666", "gopher", "key_missing")
    always = ('"prefix":""', '"scheme":"https"')
    for header in (
        f"Forwarded: for={FORGED_ADDRESS};proto=http;host={EVIL}",
        f"X-Forwarded-For: {FORGED_ADDRESS}",
        f"X-Forwarded-Host: {EVIL}",
        "X-Forwarded-Port: 6666",
        f"X-Forwarded-Prefix: /{EVIL}",
        "X-Forwarded-Proto: gopher",
        f"X-Real-IP: {FORGED_ADDRESS}",
        "X-Original-URL: /jobs",
        f"X-Script-Name: /{EVIL}",
        f"X_Forwarded_For: {FORGED_ADDRESS}",
        f"Proxy: http://{EVIL}",
        f"X-Request-ID: {EVIL}-{EVIL}",
    ):
        data = request(header, CLOSE, line=ECHO)
        yield Attack("forged header", header.partition(":")[0], data, ("200",), True, never, always)


def _hosts() -> Iterator[Attack]:
    other_url = f"GET https://{EVIL}/whoami?MARK HTTP/1.1"
    for name, data in {
        "two Hosts": request("Host: NAME", CLOSE, line=ECHO, host=EVIL),
        "none": request(CLOSE, line=ECHO, host=""),
        "none, in HTTP/1.0": request(line="GET /whoami?MARK HTTP/1.0", host=""),
        "another": request(CLOSE, line=ECHO, host=EVIL),
        "ours as a part of another": request(CLOSE, line=ECHO, host=f"NAME.{EVIL}"),
        "user and password": request(CLOSE, line=ECHO, host=f"NAME@{EVIL}"),
        "another in an absolute URL": request(CLOSE, line=other_url),
    }.items():
        yield Attack("host", name, data, ("400", "421", CLOSED), never=(EVIL,))
    own_url = "GET https://NAME/whoami?MARK HTTP/1.1"
    for name, data in {
        "ours in an absolute URL, another in the header": request(CLOSE, line=own_url, host=EVIL),
        "another port": request(CLOSE, line=ECHO, host="NAME:6666"),
        "a dot at its end": request(CLOSE, line=ECHO, host="NAME."),
    }.items():
        yield Attack("host", name, data, ("200",), True, never=(EVIL, "6666"))


def _methods() -> Iterator[Attack]:
    for name in ("TRACE", "CONNECT", "FOO"):
        data = request(CLOSE, line=f"{name} /MARK HTTP/1.1")
        yield Attack("method", name, data, ("400", "405", "501"))
    yield Attack("method", "HTTP/0.9", b"GET /MARK\r\n", ("400", CLOSED))
    yield Attack("method", "no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00", ("400", CLOSED))


def _redirects() -> Iterator[Attack]:
    always = ("Location: https://NAME",)
    never = ("\nSet-Cookie", "\nX-A", f"Location: //{EVIL}", f"Location: https://{EVIL}")
    for path in (
        f"//{EVIL}/MARK",
        f"/%2f{EVIL}/MARK",
        f"/MARK@{EVIL}",
        "/MARK%0d%0aSet-Cookie:%20a=b",
        f"/MARK?next=https://{EVIL}",
    ):
        data = request(CLOSE, line=f"GET {path} HTTP/1.1")
        yield Attack("redirect", path, data, ("308", "400"), False, never, always, "http")
    for host in (EVIL, "NAME:6666"):
        data = request(CLOSE, host=host)
        yield Attack("redirect", host, data, (CLOSED, "308"), never=(EVIL, "6666"), over="http")


def _sizes() -> Iterator[Attack]:
    large = "x" * 20_000
    yield Attack("size", "a URL of 20 KB", request(line=f"GET /MARK{large} HTTP/1.1"), ("414",))
    yield Attack("size", "a header of 20 KB", request(f"X-A: {large}"), ("400", "431"))
    many = [f"X-{n}: {'y' * 90}" for n in range(1000)]
    yield Attack("size", "1,000 headers", request(*many), ("400", "431", CLOSED))
    huge = request("Content-Length: 99999999999", line=POST)
    yield Attack("size", "a body of 100 GB, announced", huge, ("413",))
    chunks = "fffff\r\n" + "z" * 0xFFFFF + "\r\n"
    data = request(CHUNKED, line=POST, body=chunks * 11 + "0\r\n\r\n")
    yield Attack("size", "a body of 11 MB in chunks", data, ("413", CLOSED))


def _slow() -> Iterator[Attack]:
    for name, data in {
        "a header that never ends": request(line=POST)[:-2] + b"X-A: b",
        "a body that never ends": request("Content-Length: 1000", line=POST, body="x"),
        "a chunk that never ends": request(CHUNKED, line=POST, body="ff\r\nx"),
    }.items():
        yield Attack("slow", name, data, (SILENT,), then=b"y")


KINDS = (_smuggling, _paths, _forged, _hosts, _methods, _redirects, _sizes, _slow)
ATTACKS = [attack for kind in KINDS for attack in kind()]


@contextmanager
def connection(target: Target, over: str = "https") -> Iterator[socket.socket]:
    """Open a connection to a site."""
    address = (target.address, 80 if over == "http" else 443)
    with socket.create_connection(address, TIMEOUT) as plain:
        if over == "http":
            yield plain
            return
        with tls(target.ca).wrap_socket(plain, server_hostname=target.name) as secure:
            yield secure


def received(sock: socket.socket) -> tuple[bytes, bool]:
    """Return all received data, and whether the other side closed the connection."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
            sock.settimeout(SECOND_ANSWER)
    except TimeoutError:
        return data, False
    except OSError:
        pass
    return data, True


def send(target: Target, attack: Attack, mark: str) -> Result:
    """Send an attack and return its result as seen by the client."""
    data = attack.data.replace(b"MARK", mark.encode()).replace(b"NAME", target.name.encode())
    with connection(target, attack.over) as sock:
        with suppress(OSError):  # nginx may reject it, and answer, before all is sent
            sock.sendall(data)
            if attack.then:
                time.sleep(0.2)
                sock.sendall(attack.then)
        sock.settimeout(SECOND_ANSWER if attack.then else TIMEOUT)
        got, closed = received(sock)
    found = [status.decode() for status in STATUS.findall(got)]
    text = got.decode("latin-1").replace(target.name, "NAME")
    return Result(attack, mark, found or [CLOSED if closed else SILENT], text)


def results(target: Target, host: Any) -> list[Result]:
    """Send the attacks and return their results, with the matching requests from the app's log.

    `host` is a testinfra host that runs sample_app.
    """
    run = f"{time.time_ns() // 1_000_000 % 10**8:08d}"
    marks = [f"{run}{number:04d}" for number in range(len(ATTACKS))]
    start = host.check_output("date %s", "+%Y-%m-%d %H:%M:%S")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one, mark: send(target, one, mark), ATTACKS, marks))
    host.check_output("journalctl --sync")
    uris = {  # of requests that nginx received, by request ID
        entry.get("request_id"): entry.get("uri", "")
        for entry in json_lines(journal(host, "nginx.service", since=start))
    }
    for entry in json_lines(journal(host, "sample-web@*.service", since=start)):
        if entry.get("path") and entry.get("method"):
            reached = f"{entry['method']} {entry['path']}"
            text = uris.get(entry.get("request_id"), "") + reached
            for result in found:
                if result.mark in text:
                    result.reached.append(reached)
    return found


def slowloris(target: Target, connections: int, seconds: float) -> tuple[int, float]:
    """Hold connections with an endless header for some seconds; return how many are still open.

    Also return the longest time in seconds that another client waited for an answer.
    """
    longest = 0.0
    with ExitStack() as stack:
        held = [stack.enter_context(connection(target)) for _ in range(connections)]
        for sock in held:
            sock.sendall(f"GET /slowloris HTTP/1.1\r\nHost: {target.name}\r\n".encode())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            begin = time.monotonic()
            with connection(target) as other:
                other.sendall(request(CLOSE, line="GET /whoami HTTP/1.1", host=target.name))
                data, _ = received(other)
            assert STATUS.findall(data) == [b"200"], data
            longest = max(longest, time.monotonic() - begin)
            for sock in held:
                with suppress(OSError):  # nginx may have closed it
                    sock.sendall(b"X-A: b\r\n")
            time.sleep(1)
        for sock in held:
            sock.settimeout(0.05)
        return sum(not received(sock)[1] for sock in held), longest
