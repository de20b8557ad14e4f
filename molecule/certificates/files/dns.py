"""The DNS of example.org, and as much of DigitalOcean's API as an ACME client needs to write there.

DNS over UDP on 127.0.0.1:53, which pebble and the client ask; the API on 127.0.0.1:8060. Names
that begin with `missing` are not there, all others lead to this host.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ZONE = "example.org"
SERVER = "ns.example.org"  # which /etc/hosts of the test knows
A, NS, SOA, TXT = 1, 2, 6, 16
SEEN = Path("/srv/dns/seen.json")  # what was asked of the API, and where its token could be read
records: dict[int, dict[str, str]] = {}


def encoded(name: str) -> bytes:
    """Return a name as DNS writes it."""
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answers(name: str, kind: int) -> list[tuple[str, int, bytes]] | None:
    """Return what is known of a name; None when it is not there."""
    if not f".{name}".endswith(f".{ZONE}") or name.startswith("missing"):
        return None
    # The client gives the whole name, where DigitalOcean itself shows the part before the zone's.
    texts = [one["data"] for one in records.values() if one["name"].rstrip(".") == name]
    if kind == A:
        return [(name, A, socket.inet_aton("127.0.0.1"))]
    if kind == NS and name == ZONE:
        return [(name, NS, encoded(SERVER))]
    if kind == SOA and name == ZONE:
        numbers = struct.pack(">5I", 1, 60, 60, 60, 0)
        return [(name, SOA, encoded(SERVER) + encoded(f"root.{ZONE}") + numbers)]
    if kind == TXT:
        return [(name, TXT, bytes([len(text)]) + text.encode()) for text in texts]
    return []


def reply(query: bytes) -> bytes:
    """Return the answer to a query."""
    parts, position = [], 12
    while size := query[position]:
        parts.append(query[position + 1 : position + 1 + size].decode().lower())
        position += 1 + size
    (kind,) = struct.unpack(">H", query[position + 1 : position + 3])
    found = answers(".".join(parts), kind)
    body = b"".join(
        encoded(name) + struct.pack(">HHIH", kind, 1, 0, len(data)) + data
        for name, kind, data in found or []
    )
    flags = 0x8580 if found is not None else 0x8583
    header = query[:2] + struct.pack(">5H", flags, 1, len(found or []), 0, 0)
    return header + query[12 : position + 5] + body


def serve_dns() -> None:
    """Answer for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 53))
        while True:
            query, asker = here.recvfrom(4096)
            here.sendto(reply(query), asker)


class Api(BaseHTTPRequestHandler):
    """Records of a domain: made and deleted."""

    def do_POST(self) -> None:
        """Make one."""
        record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.note()
        records[number := len(records) + 1] = record
        self.answer(201, {"domain_record": {"id": number, **record}})

    def do_DELETE(self) -> None:
        """Delete one."""
        self.note()
        records[int(self.path.rpartition("/")[2])] = {"name": "", "data": ""}
        self.answer(204)

    def note(self) -> None:
        """Remember what was asked, and which processes show the token to everybody."""
        token = self.headers["Authorization"].removeprefix("Bearer ")
        shown = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if token.encode() in path.read_bytes():
                    shown.append(str(path))
            except OSError:
                continue
        seen = json.loads(SEEN.read_text()) if SEEN.exists() else []
        seen.append({"did": f"{self.command} {self.path}", "token": token, "shown": shown})
        SEEN.write_text(json.dumps(seen))

    def answer(self, status: int, body: dict | None = None) -> None:
        """Answer in JSON."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if body:
            self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    threading.Thread(target=serve_dns, daemon=True).start()
    HTTPServer(("127.0.0.1", 8060), Api).serve_forever()
