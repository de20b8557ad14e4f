"""No locked version has a known vulnerability. Skipped if no advisory service is reachable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
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
    """Return a reachable advisory service, or skip the test."""
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


class Osv(BaseHTTPRequestHandler):
    """Report a vulnerability of Flask."""

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"id": "TEST-1", "summary": "bad", "affected": [], "aliases": []}
        found = {"vulns": [known]} if query["package"]["name"] == "flask" else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_):
        """Log nothing."""


def test_vulnerable_version_in_a_lock_is_reported():
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        service = ("osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/")
        found = vulnerabilities(LOCKS[-1], "--vulnerability-service", *service)
        server.shutdown()
        thread.join()
    assert [re.sub("[0-9.]+:", "…:", each) for each in found] == ["flask …: TEST-1"]
