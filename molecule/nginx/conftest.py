"""What the tests of nginx use: the site from outside, its log, and requests of an odd kind."""

from __future__ import annotations

import json
import socket

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder, run_wsgi_app

from asking import Site, journal, json_lines, tls
from waiting import wait_for

NAME = "shop.example.org"


@pytest.fixture
def prefix(host):
    """Return the path that the app is mounted under."""
    return host.ansible.get_variables().get("app_prefix", "")


@pytest.fixture
def https(host):
    """Tell whether nginx answers https itself."""
    return host.ansible.get_variables().get("app_https", True)


@pytest.fixture
def certificate(host, tmp_path):
    """Return a function that fetches the certificate of an app, and tells where it is."""

    def of(app):
        shown = f"/etc/nginx/certificates/{app}/current/fullchain.pem"
        file = tmp_path / f"{app}.pem"
        file.write_text(host.check_output("cat %s", shown))
        return str(file)

    return of


@pytest.fixture
def ca(https, certificate):
    """Return the site's certificate, where it is asked over https."""
    return certificate("shop") if https else ""


@pytest.fixture
def site(address, prefix, ca):
    """Return the site under one of its names."""
    return Site(address, NAME, prefix, ca)


@pytest.fixture
def bare(address, ca):
    """Return the site without its prefix."""
    return Site(address, NAME, "", ca)


@pytest.fixture
def logged(host):
    """Return a function that waits for the access log's entry about a request."""

    def find(request_id):
        entries = json_lines(journal(host, "nginx.service", since="-1min"))
        return next((entry for entry in entries if entry.get("request_id") == request_id), None)

    return lambda request_id: wait_for(lambda: find(request_id))


@pytest.fixture
def connect(address, ca):
    """Return a function that opens a connection to the site as its visitors do."""

    def connect(timeout=10):
        connection = socket.create_connection((address, 443 if ca else 80), timeout)
        return tls(ca).wrap_socket(connection, server_hostname=NAME) if ca else connection

    return connect


@pytest.fixture
def raw(connect):
    """Return a function that sends bytes as they are and returns all that comes back."""

    def send(data, connect=connect):
        with connect() as connection:
            connection.sendall(data)
            with connection.makefile("rb") as answer:
                return answer.read()

    return send


LOCAL = """
import http.client, json, socket, ssl, sys
asked = json.loads(sys.argv[1])
source = (asked["source"], 0) if asked["source"] else None
context = ssl._create_unverified_context()
held, answers = [], []
for _ in range(asked["times"]):
    connection = http.client.HTTPConnection(asked["address"])
    port = 443 if asked["https"] else 80
    connection.sock = socket.create_connection((asked["address"], port), 3, source)
    if asked["https"]:
        name = asked["headers"]["Host"]
        connection.sock = context.wrap_socket(connection.sock, server_hostname=name)
    connection.request(asked["method"], asked["path"], headers=asked["headers"])
    held.append(connection)
    if not asked["together"]:
        answer = connection.getresponse()
        answers.append([answer.status, answer.read().decode(), dict(answer.getheaders())])
        connection.close()
for connection in held if asked["together"] else []:
    answer = connection.getresponse()
    answers.append([answer.status, "", dict(answer.getheaders())])
print(json.dumps(answers))
"""


@pytest.fixture
def locally(host, https, prefix):
    """Return a function that asks for the site from its own host, who is nobody's load balancer."""

    def ask(path, headers=(), address="127.0.0.1", **options):
        asked = {
            "address": address,
            "path": prefix + path,
            "headers": {"Host": NAME} | dict(headers),
        }
        asked |= {"https": https, "source": "", "times": 1, "together": False, "method": "GET"}
        return json.loads(host.check_output("python3 -c %s %s", LOCAL, json.dumps(asked | options)))

    return ask


@pytest.fixture
def local(locally):
    """Return a function that asks once from the site's own host for what the app sees."""
    return lambda *arguments, **options: json.loads(locally(*arguments, **options)[0][1])


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
