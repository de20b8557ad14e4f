"""Fixtures of the whole site."""

from __future__ import annotations

import pytest

from helpers.clients import Site


@pytest.fixture
def settings(host):
    """Return the host's inventory variables."""
    return host.ansible.get_variables()


@pytest.fixture
def certificate(host, tmp_path):
    """Return a file with the certificate of the site."""
    file = tmp_path / "certificate.pem"
    shown = "/etc/nginx/certificates/sample/current/fullchain.pem"
    file.write_text(host.check_output("cat %s", shown))
    return str(file)


@pytest.fixture
def site(address, certificate):
    """Return a client of the site."""
    return Site(address, "localhost", ca=certificate)


@pytest.fixture
def diagnostics(site, environment):
    """Return a function that sends a request with the diagnostics key."""

    def send(method, path, **options):
        return site.request(
            method, path, headers={"X-Api-Key": environment["DIAGNOSTICS_KEY"]}, **options
        )

    return send
