"""Fixtures for the nginx tests: the site from outside and its log."""

from __future__ import annotations

import pytest

from helpers.clients import Site, journal, json_lines
from helpers.wait import wait_for


@pytest.fixture
def prefix(host):
    return host.ansible.get_variables().get("app_prefix", "")


@pytest.fixture
def https(host):
    return host.ansible.get_variables().get("app_https", True)


@pytest.fixture
def certificate(host, tmp_path):
    """Return a function that fetches an app's certificate and returns its path."""

    def fetch(app):
        path = f"/etc/nginx/certificates/{app}/current/fullchain.pem"
        file = tmp_path / f"{app}.pem"
        file.write_text(host.check_output("cat %s", path))
        return str(file)

    return fetch


@pytest.fixture
def ca(https, certificate):
    """Return the path of the site's certificate, or an empty string without HTTPS."""
    return certificate("shop") if https else ""


@pytest.fixture
def site(address, prefix, ca):
    return Site(address, "shop.example.org", prefix, ca)


@pytest.fixture
def logged(host):
    """Return a function that waits for the access log entry of a request ID."""

    def find(request_id):
        entries = json_lines(journal(host, "nginx.service", since="-1min"))
        return next((entry for entry in entries if entry.get("request_id") == request_id), None)

    return lambda request_id: wait_for(lambda: find(request_id))
