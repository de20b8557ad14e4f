"""What every test of the whole site uses: the site from outside, its database, its settings."""

from __future__ import annotations

import pytest

from asking import Site, journal

UNITS = ("sample-web@*.service", "sample-worker@1.service", "sample-scheduler@1.service")


@pytest.fixture
def settings(host):
    """Return the host's inventory variables."""
    return host.ansible.get_variables()


@pytest.fixture
def certificate(host, tmp_path):
    """Return a file with the certificate that the site is known by."""
    file = tmp_path / "certificate.pem"
    shown = "/etc/nginx/certificates/sample/current/fullchain.pem"
    file.write_text(host.check_output("cat %s", shown))
    return str(file)


@pytest.fixture
def site(address, certificate):
    """Return the site under one of its names."""
    return Site(address, "localhost", ca=certificate)


@pytest.fixture
def environment(host):
    """Return the app's environment file as a dict."""
    lines = host.check_output("cat /etc/sample/environment").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: value.strip("'\"") for name, value in pairs}


@pytest.fixture
def hook(site, environment):
    """Return a function that sends a request with the hooks' key."""

    def send(method, path, **options):
        return site.request(
            method, path, headers={"X-Api-Key": environment["HOOK_API_KEY"]}, **options
        )

    return send


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the journal of the app's units to a failing test's report."""
    report = yield
    host = item.funcargs.get("host")
    if report.when == "call" and report.failed and host:
        lines = journal(host, *UNITS, "nginx.service", since="-2min")
        report.sections.append(("journal of the last two minutes", "\n".join(lines[-60:])))
    return report
