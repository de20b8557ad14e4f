"""What the tests of nginx use: the site from outside, its log, and requests of an odd kind."""

from __future__ import annotations

import json
import socket

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder, run_wsgi_app

from asking import Site, journal, json_lines
from waiting import wait_for

NAME = "shop.example.org"


@pytest.fixture
def prefix(host):
    """Return the path that the app is mounted under."""
    return host.ansible.get_variables().get("app_prefix", "")


@pytest.fixture
def site(address, prefix):
    """Return the site under one of its names."""
    return Site(address, NAME, prefix)


@pytest.fixture
def logged(host):
    """Return a function that waits for the access log's entry about a request."""

    def find(request_id):
        entries = json_lines(journal(host, "nginx.service", since="-1min"))
        return next((entry for entry in entries if entry.get("request_id") == request_id), None)

    return lambda request_id: wait_for(lambda: find(request_id))


@pytest.fixture
def raw(address):
    """Return a function that sends bytes as they are and returns all that comes back."""

    def send(data):
        with socket.create_connection((address, 80), timeout=10) as connection:
            connection.sendall(data)
            with connection.makefile("rb") as answer:
                return answer.read()

    return send


@pytest.fixture
def local(host):
    """Return a function that asks for the site from its own host, who is nobody's load balancer."""
    program = (
        "import http.client, json, sys; asked = json.loads(sys.argv[1]);"
        "connection = http.client.HTTPConnection(asked['address'], 80, timeout=10);"
        "connection.request('GET', asked['path'], headers=asked['headers']);"
        "print(connection.getresponse().read().decode())"
    )

    def ask(path, headers=(), address="127.0.0.1"):
        asked = {"address": address, "path": path, "headers": {"Host": NAME} | dict(headers)}
        return json.loads(host.check_output("python3 -c %s %s", program, json.dumps(asked)))

    return ask


@pytest.fixture
def headers():
    """Return a function that tells the headers that reached the app; none comes twice."""

    def of(seen):
        names = [name.lower() for name, _ in seen["headers"]]
        assert len(names) == len(set(names))
        return {name.lower(): value for name, value in seen["headers"]}

    return of


@pytest.fixture
def link(headers):
    """Return a function that tells which link a Flask app behind ProxyFix makes when asked so."""

    def made(seen):
        app = flask.Flask("shop")
        app.add_url_rule("/notes", "notes", lambda: flask.url_for("notes", _external=True))
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
        environ = EnvironBuilder(seen["path"], headers=headers(seen)).get_environ()
        body, status, _ = run_wsgi_app(app, environ, buffered=True)
        assert status == "200 OK"
        return "".join(part.decode() for part in body)

    return made
