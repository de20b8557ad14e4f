"""Hosts, sites, active releases and status of the fleet; answers of Prometheus and exporters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import testinfra

from helpers.clients import Site

GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


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


@pytest.fixture
def get(host) -> Callable[[str], str]:
    """Return a function that returns the answer to a request that is sent on the host."""
    return lambda url: host.check_output("python3 -c %s %s", GET, url)


@pytest.fixture
def query(get) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that returns the result of an expression from Prometheus on the host."""

    def query(expression: str) -> list[dict[str, Any]]:
        answer = get(f"http://127.0.0.1:9090/api/v1/query?query={quote(expression)}")
        return json.loads(answer)["data"]["result"]

    return query


@pytest.fixture
def status(host) -> Callable[[], dict[str, Any]]:
    """Return a function that returns the status of the app and the host."""

    def status() -> dict[str, Any]:
        return json.loads(host.run("flaskstack sample status --json").stdout)

    return status
