"""What the tests of nginx use: the site from outside, and its log."""

from __future__ import annotations

import pytest

from helpers.clients import Site, journal, json_lines
from helpers.wait import wait_for


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
    return Site(address, "shop.example.org", prefix, ca)


@pytest.fixture
def logged(host):
    """Return a function that waits for the access log's entry about a request."""

    def find(request_id):
        entries = json_lines(journal(host, "nginx.service", since="-1min"))
        return next((entry for entry in entries if entry.get("request_id") == request_id), None)

    return lambda request_id: wait_for(lambda: find(request_id))
