"""A small app to ask from outside, and what is on the host of it."""

from __future__ import annotations

import json
import os

import pytest

from helpers.clients import Site
from helpers.operator import Operator, Versions
from helpers.repository import ROOT


@pytest.fixture(scope="session")
def operator():
    """Return who deploys the small app, from the inventory that converge.yml has made."""
    return Operator(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] + "/small_app")


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """Return a function that makes a new version of the app."""
    app = ROOT / "molecule/release/files/app"
    return Versions(app, tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def site(host, address):
    """Return the site, through a door that is to its socket what nginx is."""
    if not host.service("door.socket").is_running:
        proxy = "/usr/lib/systemd/systemd-socket-proxyd /srv/fixture/web.sock"
        host.check_output(f"systemd-run --unit=door --socket-property=ListenStream=8000 {proxy}")
    return Site(f"{address}:8000", "fixture.example")


@pytest.fixture
def state(host):
    """Return a function that says what there is of the app; compare it before and after."""

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
    """Return a function that gives the deploys that the host has noted."""

    def history():
        return [
            json.loads(line)
            for line in host.check_output("cat /srv/fixture/deploys.jsonl").splitlines()
        ]

    return history


@pytest.fixture(scope="module")
def current(host):
    """Return a function that names the release in use."""

    def current():
        return host.check_output("readlink /srv/fixture/current").removeprefix("releases/")

    return current
