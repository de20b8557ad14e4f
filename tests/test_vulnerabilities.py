"""Locks have no version with a known vulnerability, if a service can be reached."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from helpers.repository import ROOT

LOCKS = ("requirements.lock", "requirements-uv.lock", "sample_app/requirements-test.lock")
# Services of pip-audit, and a query to check that each can be reached.
SERVICES = {
    "pypi": ("GET", "https://pypi.org/pypi/flask/3.0.0/json", None),
    "osv": (
        "POST",
        "https://api.osv.dev/v1/query",
        {"package": {"name": "flask", "ecosystem": "PyPI"}, "version": "3.0.0"},
    ),
}


@pytest.fixture(scope="module")
def service():
    """Return a reachable service. Without one, the locks are not checked."""
    for name, (method, url, question) in SERVICES.items():
        try:
            answer = requests.request(method, url, json=question, timeout=10)
            if answer.ok and isinstance(answer.json(), dict):
                return name
        except (requests.RequestException, ValueError):
            continue
    return pytest.skip("NOT CHECKED for known vulnerabilities: neither PyPI nor OSV answers")


def vulnerabilities(lock, *options):
    """Return the vulnerable versions in a lock: name, version and advisory."""
    command = [Path(sys.executable).with_name("pip-audit"), "--requirement", lock, *options]
    # Audit the lock as it is, without installing or resolving packages.
    command += ["--disable-pip", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    packages = json.loads(done.stdout)["dependencies"]
    assert packages
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    assert not unknown, f"nothing is known of {', '.join(unknown)}"
    return [
        f"{package['name']} {package['version']}: {bug['id']}"
        for package in packages
        for bug in package["vulns"]
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_no_version_has_a_known_vulnerability(lock, service):
    assert vulnerabilities(lock, "--vulnerability-service", service) == []


@contextmanager
def vulnerability_service(*bad):
    """Serve a vulnerability for each of these packages."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = {"id": "TEST-1", "summary": "bad", "affected": [], "aliases": []}
            found = {"vulns": [known]} if query["package"]["name"] in bad else {}
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Do not log requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_vulnerable_version_in_a_lock_is_reported():
    ask = ("--vulnerability-service", "osv", "--osv-url")
    with vulnerability_service("flask") as url:
        (found,) = vulnerabilities("sample_app/requirements.lock", *ask, url)
    assert found.startswith("flask 3.")
    assert found.endswith(": TEST-1")
    with vulnerability_service() as url:
        assert vulnerabilities("sample_app/requirements.lock", *ask, url) == []
