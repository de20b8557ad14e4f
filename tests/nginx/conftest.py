"""Fixtures for the nginx tests: hosts with sites, clients and raw requests."""

from __future__ import annotations

import http.client
import socket
from contextlib import ExitStack

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder
from werkzeug.wsgi import get_current_url

from helpers.clients import Site, tls
from helpers.nginx_server import Server

SHOP = {
    "app_name": "shop",
    "app_domains": ["shop.example.org", "*.shop.example.org"],
    "app_upload_size": 1,
    "app_static": [
        {"url": "/static/", "folder": "shop/static"},
        {"pattern": r"^/(robots\.txt|favicon\.ico)$", "folder": "shop/static", "max_age": 60},
        {"url": "/media/", "folder": "uploads/public", "shared": True},
    ],
    "app_internal": [
        {"url": "/files/", "folder": "uploads/private"},
        {"url": "/elsewhere/", "folder": "/srv/elsewhere/a"},
    ],
    "app_writable_paths": ["/srv/elsewhere"],
    "app_streaming_paths": ["/stream"],
    "app_websocket_paths": ["/ws/"],
    "app_limited_paths": [
        {"path": "/limited/", "methods": ["POST", "PUT"], "per_minute": 6, "burst": 2}
    ],
    "nginx_proxy_read_timeout": 1,
    "nginx_limit_requests": 5,
    "nginx_limit_burst": 20,
    "nginx_limit_connections": 10,
    "nginx_limit_streams": 6,
    "nginx_limit_uploads": 4,
    "nginx_upload_space": 9,
    "nginx_headers": {"X-Frame-Options": "DENY", "Referrer-Policy": "", "X-Shop": 'a \\ "shop"'},
    "nginx_limit_exempt": ["127.0.0.1"],  # the default source address of requests
    "nginx_maintenance_allow": ["127.0.0.30"],
}
OTHER = {
    "app_name": "other",
    "app_domains": ["other.example.org", "192.0.2.7"],
    "app_https_port": 8443,
    "nginx_tls_profile": "modern",
}
HOSTS = {
    # A public host with HTTPS.
    "front": [
        SHOP
        | {
            "app_certificate": "provided",
            "nginx_hsts_subdomains": True,
            "nginx_site_snippets": ["location = /ping {\n    return 200 pong;\n}\n"],
        }
    ],
    # A host behind a load balancer, with a prefix. A second app is public.
    "balanced": [
        SHOP
        | {
            "app_prefix": "/shop",
            "app_https": False,
            "app_trusted_proxies": ["127.0.0.1"],
            "nginx_proxy_read_timeout": 2,
        },
        OTHER,
    ],
}


@pytest.fixture(scope="session", params=["front", "balanced"])
def server(request, tmp_path_factory):
    """Yield a running nginx for each of HOSTS, or for those that a test selects."""
    server = Server(tmp_path_factory.mktemp("nginx"), HOSTS[request.param])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def app(server):
    return server.apps["shop"]


@pytest.fixture
def name(app):
    return app["app_domains"][0]


@pytest.fixture
def prefix(app):
    return app.get("app_prefix", "")


@pytest.fixture
def https(app):
    return app.get("app_https", True)


@pytest.fixture
def ca(server, https):
    """Return the path of the site's CA certificate, or an empty string without HTTPS."""
    return str(server.certificate("shop")) if https else ""


@pytest.fixture
def port(server, https):
    return server.https if https else server.http


@pytest.fixture
def site(server, name, port, prefix, ca):
    return Site(f"{server.address}:{port}", name, prefix, ca)


@pytest.fixture
def bare(server, name, port, ca):
    """Return a client for the site that does not add the prefix."""
    return Site(f"{server.address}:{port}", name, "", ca)


@pytest.fixture
def logged(server):
    """Return a function that waits for the access log entry of a request ID."""
    return server.log_entry


@pytest.fixture
def connect(server, name, port, ca):
    """Return a function that connects to the site from a source address."""

    def connect(source=""):
        origin = (source, 0) if source else None
        connection = socket.create_connection((server.address, port), 10, origin)
        return tls(ca).wrap_socket(connection, server_hostname=name) if ca else connection

    return connect


@pytest.fixture
def raw(connect):
    """Return a function that sends raw bytes and returns the raw response."""

    def send(data, connect=connect):
        with connect() as connection:
            connection.sendall(data)
            with connection.makefile("rb") as response:
                return response.read()

    return send


@pytest.fixture
def visit(connect, name, prefix):
    """Return a function that sends requests from an address that is neither trusted nor exempt.

    It returns status, text and headers of each response. `together` sends all requests first.
    """

    def send(path, headers=(), source="127.0.0.20", times=1, together=False, method="GET"):
        def response(connection):
            with connection.getresponse() as answer:
                text = "" if path == "/stream" else answer.read().decode()
                return answer.status, text, answer.headers

        with ExitStack() as stack:

            def request():
                connection = http.client.HTTPConnection(name)
                connection.sock = stack.enter_context(connect(source))
                connection.request(method, prefix + path, headers=dict(headers))
                return connection

            if together:
                return [*map(response, [request() for _ in range(times)])]
            return [response(request()) for _ in range(times)]

    return send


@pytest.fixture
def headers():
    """Return a function that returns the headers that the app received, each once."""

    def received(seen):
        names = [name.lower() for name, _ in seen["headers"]]
        assert len(names) == len(set(names))
        return {name.lower(): value for name, value in seen["headers"]}

    return received


@pytest.fixture
def app_url(headers):
    """Return a function that returns the URL of a request for an app behind ProxyFix."""

    def url(seen):
        environ = EnvironBuilder(seen["path"], headers=headers(seen)).get_environ()
        middleware = ProxyFix(lambda *_: [], x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
        middleware(environ, None)
        return get_current_url(environ)

    return url
