# Ansible managed (role monitoring of Flaskstack)
"""Serve the metrics of an app to Prometheus, which cannot connect to the app's Unix socket.

    app_exporter.py ADDRESS:PORT SOCKET PATH HOST

Only GET /metrics is answered, with the app's answer at PATH, so that nothing else of the app can be
reached at this port. An app without metrics (404, or PATH is `-`) is no error.
"""

from __future__ import annotations

import http.client
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT = 9  # seconds; Prometheus waits for 10
LONGEST = 16 * 2**20  # bytes
TEXT = "text/plain; version=0.0.4; charset=utf-8"
NOTE = """# HELP flaskstack_app_has_metrics 1 if the app answers at app_metrics_path.
# TYPE flaskstack_app_has_metrics gauge
flaskstack_app_has_metrics {}
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        """Connect to the socket path given as host name."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def app_metrics(path: str, url: str, name: str) -> tuple[int, bytes]:
    """Return status and body of the answer to Prometheus."""
    if url == "-":
        return 200, NOTE.format(0).encode()
    connection = UnixConnection(path, timeout=TIMEOUT)
    headers = {"Host": name, "Accept": TEXT, "User-Agent": "flaskstack-metrics"}
    headers |= {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https"}
    try:
        connection.request("GET", url, headers=headers)
        answer = connection.getresponse()
        body = answer.read(LONGEST)
    except (OSError, http.client.HTTPException) as error:
        return 503, f"The app does not answer: {error}\n".encode()
    finally:
        connection.close()
    if answer.status == 404:
        return 200, NOTE.format(0).encode()
    if answer.status != 200:
        return 502, f"The app answers {url} with {answer.status}, not with 200\n".encode()
    return 200, body.rstrip(b"\n") + b"\n" + NOTE.format(1).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers Prometheus."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    target: tuple[str, str, str]

    def do_GET(self) -> None:
        """Answer /metrics, and nothing else."""
        known = self.path == "/metrics"
        status, body = app_metrics(*self.target) if known else (404, b"Not found\n")
        self.send_response(status)
        self.send_header("Content-Type", TEXT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the journal free of one line per scrape."""


def server(listen: str, *target: str) -> ThreadingHTTPServer:
    """Return a server that listens on `address:port`, or `[address]:port` for IPv6."""
    address, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    kind = type("Server", (ThreadingHTTPServer,), {"address_family": family})
    return kind((address.strip("[]"), int(port)), type("Target", (Handler,), {"target": target}))


if __name__ == "__main__":
    server(*sys.argv[1:]).serve_forever()
