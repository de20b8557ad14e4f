"""Gunicorn accepts all requests that nginx accepts, with the configuration of both roles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.nginx_server import Server, Stub, run
from helpers.templates import render
from helpers.wait import wait_for

APP = """
import json

def application(environ, start_response):
    known = {"query": len(environ["QUERY_STRING"]), "body": len(environ["wsgi.input"].read())}
    known |= {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    start_response("200 OK", [("Set-Cookie", "a=" + "x" * int(environ.get("HTTP_X_LONG", 0)))])
    return [json.dumps(known).encode()]
"""
VARIABLES = {
    "app_name": "shop",
    "app_domains": ["shop.example.org"],
    "app_wsgi": "echo:application",
    "app_secret_key": "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU",
    "gunicorn_workers": 1,
    "nginx_limit_requests": 0,
}
OTHERS = {"app_header_size": 64, "app_underscore_headers": ["api_key"]}


class Gunicorn(Stub):
    """An app in Gunicorn with the configuration that the role renders."""

    def __init__(self, path, variables):
        """Set the Unix socket and the variables of the role."""
        super().__init__(path)
        self.variables = variables

    def start(self):
        """Start Gunicorn and wait until it answers."""
        folder = self.path.parent
        (folder / "echo.py").write_text(APP)
        text = render("gunicorn", "gunicorn.conf.py.j2", **self.variables)
        (folder / "gunicorn.conf.py").write_text(text)
        gunicorn = Path(sys.executable).with_name("gunicorn")
        self.process = run(gunicorn, "--bind", f"unix:{self.path}", cwd=folder)
        wait_for(self.answers, every=0.02)


@pytest.fixture(scope="module", params=[{}, OTHERS], ids=["usual", "others"])
def server(request, tmp_path_factory):
    """Return a host with nginx and Gunicorn."""
    server = Server(tmp_path_factory.mktemp("nginx"), [VARIABLES | request.param])
    server.stub = Gunicorn(server.stub.path, server.apps["shop"])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def size(app):
    """Return the maximum size of a URL or a header in bytes, less a margin."""
    return app.get("app_header_size", 16) * 1024 - 100


def test_url_size(site, size):
    assert site.get(f"/?{'x' * size}").json()["query"] == size
    answer = site.get(f"/?{'x' * (size + 100)}")
    assert (answer.status_code, answer.headers["Server"]) == (414, "nginx")


def test_request_header_size(site, size):
    seen = site.get("/", headers={"Cookie": f"a={'x' * size}"}).json()
    assert len(seen["HTTP_COOKIE"]) == size + 2
    many = {f"X-{number}": "x" for number in range(300)}
    assert len(site.get("/", headers=many).json()) > 300
    answer = site.get("/", headers={"Cookie": f"a={'x' * (size + 100)}"})
    assert (answer.status_code, answer.headers["Server"]) == (400, "nginx")
    assert "Too Large" in answer.text


def test_response_header_size(site, size):
    size -= 1000  # for other headers
    answer = site.get("/", headers={"X-Long": str(size)})
    assert len(answer.headers["Set-Cookie"]) == size + 2


def test_declared_headers_with_an_underscore_are_passed_on(site, app):
    given = {"api_key": "a", "other_key": "b", "X_Forwarded_For": "203.0.113.66"}
    seen = site.get("/", headers=given).json()
    assert seen.get("HTTP_API_KEY") == ("a" if "app_underscore_headers" in app else None)
    assert "HTTP_OTHER_KEY" not in seen
    assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
