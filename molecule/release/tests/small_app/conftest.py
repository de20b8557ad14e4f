"""A small app, reached from outside."""

from __future__ import annotations

import os

import pytest

from helpers.clients import Site
from helpers.operator import Operator, Versions
from helpers.repository import ROOT


@pytest.fixture(scope="session")
def operator():
    """Return an operator who uses the inventory that converge.yml created."""
    return Operator(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] + "/small_app")


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """Return a function that creates a new version of the app."""
    app = ROOT / "molecule/release/files/app"
    return Versions(app, tmp_path_factory.mktemp("versions"))


@pytest.fixture
def active_release(host, address):
    """Return a function that returns the active release, after checking that the app serves it."""
    if not host.service("app-proxy.socket").is_running:
        proxy = "/usr/lib/systemd/systemd-socket-proxyd /srv/fixture/web.sock"
        listen = "--socket-property=ListenStream=8000"
        host.check_output(f"systemd-run --unit=app-proxy {listen} {proxy}")
    site = Site(f"{address}:8000", "fixture.example")

    def read():
        release = host.check_output("readlink /srv/fixture/current").removeprefix("releases/")
        assert site.get("/").text == release
        return release

    return read
