"""A stub of the DNS of example.org, and of DigitalOcean's API for its records.

DNS listens on UDP 127.0.0.1:53 for pebble and lego, the API on 127.0.0.1:8060. Names that begin
with `missing` do not exist. All others resolve to this host.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, DNSRecord
from dnslib.server import BaseResolver, DNSServer

ZONE = "example.org"
SERVER = "ns.example.org"  # in /etc/hosts, see prepare.yml
SEEN = Path("/srv/dns/seen.json")  # requests to the API, and processes that show its token
records: dict[int, dict[str, str]] = {}


class Resolver(BaseResolver):
    """Answers queries."""

    def resolve(self, request: DNSRecord, _: object) -> DNSRecord:
        """Return the response to a query."""
        reply, name = request.reply(), str(request.q.qname).rstrip(".").lower()
        if not f".{name}".endswith(f".{ZONE}") or name.startswith("missing"):
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        found = {"A": ["127.0.0.1"]}
        # lego sends the full name.
        texts = [one["data"] for one in records.values() if one["name"].rstrip(".") == name]
        found["TXT"] = [f'"{text}"' for text in texts]
        if name == ZONE:
            found |= {"NS": [f"{SERVER}."], "SOA": [f"{SERVER}. root.{ZONE}. 1 60 60 60 0"]}
        kind = QTYPE[request.q.qtype]
        for value in found.get(kind, []):
            reply.add_answer(*RR.fromZone(f"{name}. 0 IN {kind} {value}"))
        return reply


class Api(BaseHTTPRequestHandler):
    """Creates and deletes the records of a domain."""

    def do_POST(self) -> None:
        """Create a record."""
        record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        records[number := len(records) + 1] = record
        self.answer(201, {"domain_record": {"id": number, **record}})

    def do_DELETE(self) -> None:
        """Delete a record."""
        records[int(self.path.rpartition("/")[2])] = {"name": "", "data": ""}
        self.answer(204)

    def answer(self, status: int, body: dict | None = None) -> None:
        """Log the request and the processes that show its token, and send a JSON response."""
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
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if body:
            self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    DNSServer(Resolver(), address="127.0.0.1", port=53).start_thread()
    HTTPServer(("127.0.0.1", 8060), Api).serve_forever()
