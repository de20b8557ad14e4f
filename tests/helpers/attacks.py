"""Requests that an attacker would send to a site, and their results.

Each attack is bytes on a socket, since most client libraries refuse to send them. A marker in the
URL identifies it in the logs; a request smuggled inside another one requests /smuggled-….
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from helpers.clients import journal, json_lines, tls

EVIL = "evil.example"
FORGED_ADDRESS = "203.0.113.66"
TIMEOUT = 5  # seconds
CLOSED, SILENT = "closed", "no answer"
REFUSED = ("400", "403", "404", "405", "413", "414", "421", "431", "501", CLOSED, "reset")
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})", re.MULTILINE)
H2_STATUSES = {0x88: "200", 0x89: "204", 0x8A: "206", 0x8B: "304", 0x8C: "400", 0x8D: "404"}
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


@dataclass(frozen=True)
class Target:
    """A site to attack."""

    address: str
    name: str  # one of its names
    ca: str  # certificate file to verify the site with
    port: int = 443
    plain_port: int = 80


@dataclass(frozen=True)
class Attack:
    """A request and its expected result."""

    kind: str
    name: str
    data: bytes  # NAME and MARK are replaced
    answers: tuple[str, ...] = REFUSED  # the first answer must be one of these
    reaches: bool = False  # whether the app may receive it, as a normal request
    never: tuple[str, ...] = ()  # strings that no answer may contain
    always: tuple[str, ...] = ()  # strings that the answer must contain
    over: str = "https"  # http, https or h2
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
    def row(self) -> tuple[str, str, str, str]:
        """Return kind, attack, answers and the requests that the app received."""
        return (
            self.attack.kind,
            self.attack.name,
            ", ".join(self.answers),
            ", ".join(self.reached) or "nothing",
        )

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
        if any("smuggled" in seen for seen in self.reached):
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


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def h2(
    *headers: tuple[str, str], path: str = "/MARK", method: str = "GET", body: str = ""
) -> bytes:
    """Return an HTTP/2 request without its preface; its headers are encoded literally."""
    pairs = [(":method", method), (":scheme", "https"), (":authority", "NAME"), (":path", path)]
    return ("\n".join(f"{n}\0{v}" for n, v in [*pairs, *headers]) + "\1" + body).encode("latin-1")


def h2_frames(data: bytes) -> bytes:
    """Return the frames of a request built by `h2`."""
    head, _, body = data.partition(b"\1")
    block = b""
    for pair in re.split(rb"\n(?=[^\n]*\0)", head):
        name, _, value = pair.partition(b"\0")
        block += b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
    end = 0 if body else 1
    sent = H2_PREFACE + frame(1, 4 | end, 1, block)
    return sent + frame(0, 1, 1, body) if body else sent


def inner(path: str = "/smuggled-MARK") -> str:
    """Return a request to hide in a body."""
    return f"GET {path} HTTP/1.1\r\nHost: NAME\r\nX-Ignore: x"


CHUNKED = "Transfer-Encoding: chunked"
POST = "POST /MARK HTTP/1.1"
ECHO = "GET /whoami?MARK HTTP/1.1"


def _smuggling() -> Iterator[Attack]:
    """Framing is nginx's own task: one request of each kind shows that none is passed on."""
    hidden = "0\r\n\r\n" + inner() + "\r\n\r\n"
    both = f"Content-Length: {len(hidden) + 40}"
    table = [
        ("CL.TE", (both, CHUNKED), hidden),
        ("TE.TE, the second unknown", (CHUNKED, "Transfer-Encoding: cow"), hidden),
        ("a space before the colon", ("Transfer-Encoding : chunked", both), hidden),
        ("folded onto another header", ("X-A: b", f" {CHUNKED}", "Content-Length: 0"), ""),
        ("two Content-Lengths", ("Content-Length: 0", "Content-Length: 44"), inner()),
        ("a NUL in a header", ("X-A: b\0c",), ""),
    ]
    for name, headers, body in table:
        yield Attack("smuggling", name, request(*headers, line=POST, body=body))
    # Tests of the template: which headers and bodies of a valid request reach the app.
    length = len(inner().replace("MARK", "0" * 12).replace("NAME", "localhost"))
    whole = request(f"Content-Length: {length}", "Connection: close", line=ECHO, body=inner())
    yield Attack("smuggling", "a GET with a request as its body", whole, ("200",), reaches=True)
    listed = "Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Request-ID"
    data, always = request(listed, line=ECHO), ('"scheme":"https"',)
    yield Attack("smuggling", "proxy headers in Connection", data, ("200",), True, always=always)


def _paths() -> Iterator[Attack]:
    table = [
        "/static../__init__.py",
        "/static..%2f__init__.py",
        "/static/../../../../../../etc/passwd",
        "/static/..;/..;/pyproject.toml",
        "/static/%2e%2e%2f%2e%2e%2fpyproject.toml",
        "/static/..%5c..%5cpyproject.toml",
        "/static/%252e%252e/pyproject.toml",
        "/static/%c0%ae%c0%ae/pyproject.toml",
        "/static//..//..//pyproject.toml",
        "/static/page.js%00.css",
        "/static/page.js/../../__init__.py",
        "/.git/config",
        "/static/.env",
        "/.well-known/acme-challenge/../../../etc/passwd",
    ]
    never = ("root:x:", "[project]", "from flask", "SECRET")
    for path in table:
        data = request("Connection: close", line=f"GET {path}?MARK HTTP/1.1")
        yield Attack("path", path, data, reaches=True, never=never)
    data = request(
        "Connection: close", line="GET /.well-known/acme-challenge/..%2f..%2fa?MARK HTTP/1.1"
    )
    yield Attack(
        "path", "out of the ACME folder", data, (*REFUSED, "308"), never=never, over="http"
    )


def _forged() -> Iterator[Attack]:
    table = {
        "Forwarded": f"for={FORGED_ADDRESS};proto=http;host={EVIL}",
        "X-Forwarded-For": FORGED_ADDRESS,
        "X-Forwarded-Host": EVIL,
        "X-Forwarded-Port": "6666",
        "X-Forwarded-Prefix": f"/{EVIL}",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Server": EVIL,
        "X-Real-IP": FORGED_ADDRESS,
        "X-Client-IP": FORGED_ADDRESS,
        "True-Client-IP": FORGED_ADDRESS,
        "CF-Connecting-IP": FORGED_ADDRESS,
        "X-Original-URL": "/jobs",
        "X-Rewrite-URL": "/jobs",
        "X-Original-Host": EVIL,
        "X-Host": EVIL,
        "X-Script-Name": f"/{EVIL}",
        "X_Forwarded_For": FORGED_ADDRESS,
        "X-Forwarded_Host": EVIL,
        "Proxy": f"http://{EVIL}",
        "X-Request-ID": f"{EVIL}-{EVIL}",
    }
    never = (EVIL, FORGED_ADDRESS, "6666", "gopher", "key_missing")
    for name, value in table.items():
        data = request(f"{name}: {value}", "Connection: close", line=ECHO)
        always = ('"prefix":""', '"scheme":"https"')
        yield Attack("forged header", name, data, ("200",), True, never, always)


def _hosts() -> Iterator[Attack]:
    gone, ours = ("400", "421", CLOSED), ("200",)
    end = "Connection: close"
    table = [
        ("two Hosts", request(f"Host: {EVIL}", end, line=ECHO), gone),
        ("two Hosts, ours last", request("Host: NAME", end, line=ECHO, host=EVIL), gone),
        ("none", request(end, line=ECHO, host=""), gone),
        ("none, in HTTP/1.0", request(line="GET /whoami?MARK HTTP/1.0", host=""), gone),
        ("another", request(end, line=ECHO, host=EVIL), gone),
        ("ours as a part of another", request(end, line=ECHO, host=f"NAME.{EVIL}"), gone),
        ("user and password", request(end, line=ECHO, host=f"NAME@{EVIL}"), gone),
        ("ours in front of a slash", request(end, line=ECHO, host=f"{EVIL}/NAME"), gone),
        ("folded", request(f" {EVIL}", end, line=ECHO), gone),
        ("with a space before the colon", request(f"Host : {EVIL}", end, line=ECHO), gone),
        ("with a NUL", request(end, line=ECHO, host=f"NAME\0.{EVIL}"), gone),
        (
            "another in an absolute URL",
            request(end, line=f"GET https://{EVIL}/whoami?MARK HTTP/1.1"),
            gone,
        ),
    ]
    for name, data, answers in table:
        yield Attack("host", name, data, answers, never=(EVIL,))
    table = [
        (
            "ours in an absolute URL, another in the header",
            request(end, line="GET https://NAME/whoami?MARK HTTP/1.1", host=EVIL),
            ours,
        ),
        ("a port of the attacker's", request(end, line=ECHO, host="NAME:6666"), ours),
        ("a port that is none", request(end, line=ECHO, host=f"NAME:80@{EVIL}"), (*ours, *gone)),
        ("a port of letters", request(end, line=ECHO, host=f"NAME:{EVIL}"), (*ours, *gone)),
        ("a dot at its end", request(end, line=ECHO, host="NAME."), ours),
    ]
    for name, data, answers in table:
        yield Attack("host", name, data, answers, reaches=True, never=(EVIL, "6666"))


def _methods() -> Iterator[Attack]:
    names = ["TRACE", "CONNECT", "DEBUG", "PROPFIND", "PURGE", "FOO", "get"]
    for name in names:
        data = request("Connection: close", line=f"{name} /MARK HTTP/1.1")
        yield Attack("method", name, data, ("400", "405", "501"))
    data = request("Connection: close", line="CONNECT NAME:22 HTTP/1.1")
    yield Attack("method", "CONNECT to another port", data, ("400", "405"))
    yield Attack("method", "HTTP/0.9", b"GET /MARK\r\n", ("400", CLOSED))
    yield Attack("method", "HTTP/9.9", request(line="GET /MARK HTTP/9.9"), ("400", "505"))
    yield Attack("method", "no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00", ("400", CLOSED))


def _redirects() -> Iterator[Attack]:
    table = [
        f"//{EVIL}/MARK",
        f"/\\{EVIL}/MARK",
        f"/%2f{EVIL}/MARK",
        f"/MARK@{EVIL}",
        "/MARK%0d%0aSet-Cookie:%20a=b",
        "/MARK%0aX-A:%20b",
        f"http://NAME/MARK/..//{EVIL}",
        f"/MARK?next=https://{EVIL}",
    ]
    for path in table:
        data = request("Connection: close", line=f"GET {path} HTTP/1.1")
        always = ("Location: https://NAME",)
        never = ("\nSet-Cookie", "\nX-A", f"Location: //{EVIL}", f"Location: https://{EVIL}")
        yield Attack("redirect", path, data, ("308", "400"), False, never, always, "http")
    for name, data in {
        "another Host": request("Connection: close", host=EVIL),
        "an absolute URL of another": request(line=f"GET http://{EVIL}/MARK HTTP/1.1"),
        "a port of the attacker's": request("Connection: close", host="NAME:6666"),
    }.items():
        yield Attack("redirect", name, data, (CLOSED, "308"), never=(EVIL, "6666"), over="http")


def _sizes() -> Iterator[Attack]:
    large = "x" * 20_000
    yield Attack("size", "a URL of 20 KB", request(line=f"GET /MARK{large} HTTP/1.1"), ("414",))
    yield Attack("size", "a header of 20 KB", request(f"X-A: {large}"), ("400", "431"))
    yield Attack("size", "a cookie of 20 KB", request(f"Cookie: {large}"), ("400", "431"))
    many = [f"X-{n}: {'y' * 90}" for n in range(1000)]
    yield Attack("size", "1,000 headers", request(*many), ("400", "431", CLOSED))
    huge = request("Content-Length: 99999999999", line=POST)
    yield Attack("size", "a body of 100 GB, announced", huge, ("413",))
    chunks = "fffff\r\n" + "z" * 0xFFFFF + "\r\n"
    data = request(CHUNKED, line=POST, body=chunks * 11 + "0\r\n\r\n")
    yield Attack("size", "a body of 11 MB in chunks", data, ("413", CLOSED))


def _slow() -> Iterator[Attack]:
    unfinished = request(line=POST)[:-2] + b"X-A: b"
    yield Attack("slow", "a header that never ends", unfinished, (SILENT,), then=b"c")
    body = request("Content-Length: 1000", line=POST, body="x")
    yield Attack("slow", "a body that never ends", body, (SILENT,), then=b"y")
    yield Attack(
        "slow",
        "a chunk that never ends",
        request(CHUNKED, line=POST, body="ff\r\nx"),
        (SILENT,),
        then=b"y",
    )


def _http2() -> Iterator[Attack]:
    table = [
        ("CRLF in a value", h2(("x-a", "b\r\nx-forwarded-for: 1.2.3.4"))),
        ("CRLF in the path", h2(path=f"/MARK HTTP/1.1\r\nHost: {EVIL}\r\n\r\n{inner()}")),
        ("a colon in a name", h2(("x-a: b", "c"))),
        ("capital letters in a name", h2(("X-A", "b"))),
        ("a second path", h2((":path", "/smuggled-MARK"))),
        ("an unknown pseudo header", h2((":evil", "x"))),
        ("a Host that is not the authority", h2(("host", EVIL))),
        ("a shorter content-length", h2(("content-length", "1"), method="POST", body="hello")),
        ("an unknown method", h2(method="PROPFIND")),
        (
            "a method with CRLF",
            h2(method=f"GET /smuggled-MARK HTTP/1.1\r\nHost: {EVIL}\r\n\r\nGET"),
        ),
    ]
    for name, data in table:
        yield Attack("HTTP/2", name, data, over="h2")
    chunks = h2(("transfer-encoding", "chunked"), method="POST", body=f"0\r\n\r\n{inner()}")
    yield Attack("HTTP/2", "transfer-encoding", chunks, (*REFUSED, "404", "405"), True, over="h2")


ATTACKS = [
    *_smuggling(),
    *_paths(),
    *_forged(),
    *_hosts(),
    *_methods(),
    *_redirects(),
    *_sizes(),
    *_slow(),
    *_http2(),
]


@contextmanager
def connection(target: Target, over: str) -> Iterator[socket.socket]:
    """Open a connection to a site."""
    port = target.plain_port if over == "http" else target.port
    with socket.create_connection((target.address, port), TIMEOUT) as plain:
        if over == "http":
            yield plain
            return
        context = tls(target.ca)
        context.set_alpn_protocols(["h2" if over == "h2" else "http/1.1"])
        with context.wrap_socket(plain, server_hostname=target.name) as secure:
            yield secure


def received(sock: socket.socket) -> tuple[bytes, bool]:
    """Return all received data, and whether the other side closed the connection."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
            sock.settimeout(0.7)  # time for a second answer to one request
    except TimeoutError:
        return data, False
    except (OSError, ssl.SSLError):
        return data, True
    return data, True


def h2_answers(data: bytes) -> list[str]:
    """Return the statuses of the HTTP/2 answers, or a note that there was none."""
    found, position = [], 0
    while position + 9 <= len(data):
        length, kind = int.from_bytes(data[position : position + 3], "big"), data[position + 3]
        payload = data[position + 9 : position + 9 + length]
        if kind == 1:
            literal = payload[2:5].decode("latin-1")
            found.append(H2_STATUSES.get(payload[0], literal))
        elif kind in (3, 7) and not found:
            found.append("reset")
        position += 9 + length
    return found


def attack(target: Target, attack: Attack, mark: str) -> Result:
    """Send an attack and return its result as seen by the client."""
    data = attack.data.replace(b"MARK", mark.encode()).replace(b"NAME", target.name.encode())
    quick = attack.over == "h2" or attack.then
    with connection(target, attack.over) as sock:
        try:
            sock.sendall(h2_frames(data) if attack.over == "h2" else data)
            if attack.then:
                time.sleep(0.2)
                sock.sendall(attack.then)
        except OSError:
            pass  # rejected before all of it was sent; the answer may have arrived
        sock.settimeout(0.7 if quick else TIMEOUT)
        got, closed = received(sock)
    found = h2_answers(got) if attack.over == "h2" else [m.decode() for m in STATUS.findall(got)]
    text = got.decode("latin-1").replace(target.name, "NAME")
    return Result(attack, mark, found or [CLOSED if closed else SILENT], text)


def results(target: Target, host: Any) -> list[Result]:
    """Send the attacks and return their results, with the matching requests from the app's log.

    `host` is testinfra's and must run sample_app.
    """
    run = f"{time.time_ns() // 1_000_000 % 10**8:08d}"
    host.check_output("journalctl --sync")
    start = host.check_output("date %s", "+%Y-%m-%d %H:%M:%S")
    found = [attack(target, one, f"{run}{number:04d}") for number, one in enumerate(ATTACKS)]
    host.check_output("journalctl --sync")
    asked = {  # requests received by nginx, by request id
        entry.get("request_id"): entry.get("uri", "")
        for entry in json_lines(journal(host, "nginx.service", since=start))
    }
    for entry in json_lines(journal(host, "sample-web@*.service", since=start)):
        if not (entry.get("path") and entry.get("method")):
            continue
        seen = f"{entry['method']} {entry['path']}"
        marks = asked.get(entry.get("request_id"), "") + seen
        for result in found:
            if result.mark in marks:
                result.reached.append(seen)
    return found


def slowloris(target: Target, connections: int, seconds: float) -> tuple[int, float]:
    """Hold connections with an endless header; return how many are still open after `seconds`.

    Also returns the longest time in seconds that another client waited for an answer.
    """
    held, longest = [], 0.0
    try:
        for _ in range(connections):
            sock = tls(target.ca).wrap_socket(
                socket.create_connection((target.address, target.port), TIMEOUT),
                server_hostname=target.name,
            )
            sock.sendall(f"GET /slowloris HTTP/1.1\r\nHost: {target.name}\r\n".encode())
            held.append(sock)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            begin = time.monotonic()
            with connection(target, "https") as other:
                whole = request("Connection: close", line="GET /whoami HTTP/1.1", host=target.name)
                other.sendall(whole)
                data, _ = received(other)
            assert STATUS.findall(data) == [b"200"], data
            longest = max(longest, time.monotonic() - begin)
            for sock in held:
                with suppress(OSError):  # nginx may have closed it
                    sock.sendall(b"X-A: b\r\n")
            time.sleep(1)
        alive = 0
        for sock in held:
            sock.settimeout(0.05)
            alive += not received(sock)[1]
        return alive, longest
    finally:
        for sock in held:
            sock.close()
