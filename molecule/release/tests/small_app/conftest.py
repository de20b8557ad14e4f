"""A small app, reached from outside, and its state on the host."""

from __future__ import annotations

import json
import os

import pytest

from helpers.clients import Site
from helpers.operator import Operator, Versions
from helpers.repository import ROOT


@pytest.fixture(scope="session")
def operator():
    """Return an operator who uses the inventory that converge.yml created."""
    return Operator(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] + "/small_app")


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """Return a function that creates a new version of the app."""
    app = ROOT / "molecule/release/files/app"
    return Versions(app, tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def site(host, address):
    """Return the site, reached through a proxy in front of the app's socket."""
    if not host.service("door.socket").is_running:
        proxy = "/usr/lib/systemd/systemd-socket-proxyd /srv/fixture/web.sock"
        host.check_output(f"systemd-run --unit=door --socket-property=ListenStream=8000 {proxy}")
    return Site(f"{address}:8000", "fixture.example")


@pytest.fixture
def state(host):
    """Return a function that reports the app's state, to compare before and after."""

    def state():
        folders = (
            "releases instances instances/* current previous web.sock deploys.jsonl .deploying"
        )
        units = "systemctl list-units 'fixture-*' --state=active --plain --no-legend"
        return host.run(f"cd /srv/fixture; ls -dl --time-style=+ {folders}; ls releases").stdout, {
            line.split()[0] for line in host.check_output(units).splitlines()
        }

    return state


@pytest.fixture(scope="module")
def history(host):
    """Return a function that reads the host's deploy history."""

    def history():
        return [
            json.loads(line)
            for line in host.check_output("cat /srv/fixture/deploys.jsonl").splitlines()
        ]

    return history


@pytest.fixture(scope="module")
def current(host):
    """Return a function that returns the active release."""

    def current():
        return host.check_output("readlink /srv/fixture/current").removeprefix("releases/")

    return current
