"""Hosts, sites and active releases of the fleet."""

from __future__ import annotations

import os

import pytest
import testinfra

from helpers.clients import Site


@pytest.fixture(scope="session")
def fleet():
    """Return the hosts by name."""
    options = {"ansible_inventory": os.environ["MOLECULE_INVENTORY_FILE"], "sudo": True}
    names = ("app-1", "app-2", "data")
    return {name: testinfra.get_host(f"ansible://{name}", **options) for name in names}


@pytest.fixture(scope="session")
def sites(fleet):
    """Return a client of each app host by name."""
    hosts = {name: host for name, host in fleet.items() if name != "data"}
    return {
        name: Site(host.ansible.get_variables()["ansible_host"], "localhost")
        for name, host in hosts.items()
    }


@pytest.fixture
def serving(fleet):
    """Return a function that returns the active release of each app host."""

    def serving():
        return {
            name: fleet[name].check_output("readlink /srv/sample/current").removeprefix("releases/")
            for name in ("app-1", "app-2")
        }

    return serving
