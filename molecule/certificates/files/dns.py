"""A stub of the DNS of example.org, and of DigitalOcean's API for its records.

DNS over UDP on 127.0.0.1:53, for pebble and the client; the API on 127.0.0.1:8060. Names that
begin with `missing` do not exist, all others resolve to this host.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ZONE = "example.org"
SERVER = "ns.example.org"  # in /etc/hosts, see prepare.yml
A, NS, SOA, TXT = 1, 2, 6, 16
SEEN = Path("/srv/dns/seen.json")  # requests to the API, and processes that show its token
records: dict[int, dict[str, str]] = {}


def encoded(name: str) -> bytes:
    """Encode a name for DNS."""
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answers(name: str, kind: int) -> list[tuple[str, int, bytes]] | None:
    """Return the records of a name; None if it does not exist."""
    if not f".{name}".endswith(f".{ZONE}") or name.startswith("missing"):
        return None
    # The client sends the full name.
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
    """Return the response to a query."""
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
    """Answer queries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(reply(query), client)


class Api(BaseHTTPRequestHandler):
    """Creates and deletes the records of a domain."""

    def do_POST(self) -> None:
        """Create a record."""
        record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.log()
        records[number := len(records) + 1] = record
        self.answer(201, {"domain_record": {"id": number, **record}})

    def do_DELETE(self) -> None:
        """Delete a record."""
        self.log()
        records[int(self.path.rpartition("/")[2])] = {"name": "", "data": ""}
        self.answer(204)

    def log(self) -> None:
        """Log the request, and the processes with the token in their command line."""
        token = self.headers["Authorization"].removeprefix("Bearer ")
        shown = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if token.encode() in path.read_bytes():
                    shown.append(str(path))
            except OSError:
                continue
        seen = json.loads(SEEN.read_text()) if SEEN.exists() else []
        seen.append({"request": f"{self.command} {self.path}", "token": token, "shown": shown})
        SEEN.write_text(json.dumps(seen))

    def answer(self, status: int, body: dict | None = None) -> None:
        """Send a JSON response."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if body:
            self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    threading.Thread(target=serve_dns, daemon=True).start()
    HTTPServer(("127.0.0.1", 8060), Api).serve_forever()
