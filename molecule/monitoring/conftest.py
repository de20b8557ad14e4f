"""Fixtures of the scenario: answers of Prometheus and exporters, and the status of a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


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
