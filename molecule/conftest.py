"""Fixtures shared by all scenarios."""

import os

import pytest

from helpers.clients import Database, Site, journal
from helpers.operator import Operator, Versions
from helpers.repository import ROOT


@pytest.fixture(scope="module")
def address(host):
    """Return the server's address, as seen from outside."""
    return host.ansible.get_variables()["ansible_host"]


@pytest.fixture
def site(address):
    """Return the site under its name in inventory/local."""
    return Site(address, "localhost")


@pytest.fixture
def sql(host):
    """Return a root connection to the database."""
    return Database(host)


@pytest.fixture
def environment(host):
    """Return the sample app's environment file as a dict."""
    lines = host.check_output("cat /etc/sample/current/environment").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: value.strip("'\"") for name, value in pairs}


@pytest.fixture(scope="session")
def operator():
    """Return an operator who deploys."""
    return Operator(os.environ["MOLECULE_INVENTORY_FILE"])


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """Return a function that creates a new version of the sample app."""
    return Versions(ROOT / "sample_app", tmp_path_factory.mktemp("versions"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the journal of the host's services to the report of a failed test."""
    report = yield
    host = item.funcargs.get("host")
    if report.when == "call" and report.failed and host:
        try:
            lines = journal(host, "*.service", since="-2min")
        except Exception as error:  # an unreachable host must not suppress the report
            lines = [f"cannot be read: {error}"]
        report.sections.append(("journal of the last two minutes", "\n".join(lines[-60:])))
    return report
