"""The program that serves an app's metrics to Prometheus."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from threading import Thread
from typing import ClassVar

import pytest

from helpers.imports import import_role_file

module = import_role_file("monitoring/files/usr/local/lib/flaskstack/app_exporter.py")
METRIC = b"# TYPE requests counter\nrequests 7\n"


class App(BaseHTTPRequestHandler):
    """An app with metrics; it records the requests."""

    seen: ClassVar[list] = []

    def do_GET(self):
        self.seen.append((self.path, dict(self.headers)))
        status = {"/metrics": 200, "/broken": 500}.get(self.path, 404)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(METRIC if status == 200 else b"an error page")

    def address_string(self):
        return "socket"

    def log_message(self, *_):
        pass


@pytest.fixture
def app(tmp_path):
    """Yield the socket of a running app."""
    App.seen = []
    with ThreadingUnixStreamServer(str(tmp_path / "web.sock"), App) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield str(tmp_path / "web.sock")
        server.shutdown()


@pytest.fixture
def scrape():
    """Return `scrape(socket, path)`, which returns status and body as Prometheus gets them."""
    servers = []

    def scrape(path, url="/metrics", asked="/metrics", listen="127.0.0.1:0"):
        server = module.server(listen, path, url, "shop.example.org")
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        host = f"[{host}]" if ":" in host else host
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{asked}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    yield scrape
    for server in servers:
        server.shutdown()
        server.server_close()


def test_metrics_of_the_app(app, scrape):
    status, text = scrape(app)
    assert (status, text.splitlines()[1]) == (200, "requests 7")
    assert text.endswith("flaskstack_app_has_metrics 1\n")
    ((path, headers),) = App.seen
    assert path == "/metrics"
    assert headers["Host"] == "shop.example.org"
    assert "version=0.0.4" in headers["Accept"]


def test_nothing_else_of_the_app_can_be_reached(app, scrape):
    for path in ("/", "/admin", "/metrics/", "/metrics?x=1"):
        assert scrape(app, asked=path)[0] == 404
    assert App.seen == []


@pytest.mark.parametrize("url", ["/nothing", "-"])
def test_app_without_metrics_is_no_error(app, scrape, url):
    status, text = scrape(app, url)
    assert status == 200
    assert "flaskstack_app_has_metrics 0" in text
    assert "error page" not in text


def test_failing_app_is_an_error(app, scrape, tmp_path):
    assert scrape(app, "/broken")[0] == 502
    status, text = scrape(str(tmp_path / "missing.sock"))
    assert status == 503
    assert "does not answer" in text


def test_ipv6(app, scrape):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    assert scrape(app, listen="[::1]:0")[0] == 200
