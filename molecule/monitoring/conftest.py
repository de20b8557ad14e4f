"""Fixtures of the scenario: queries to Prometheus, and the status of a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest


@pytest.fixture
def query(host) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that returns the result of an expression from Prometheus on the host."""

    def query(expression: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:9090/api/v1/query?query={quote(expression)}"
        answer = json.loads(host.check_output("curl --silent --fail %s", url))
        return answer["data"]["result"]

    return query


@pytest.fixture
def status(host) -> Callable[[], dict[str, Any]]:
    """Return a function that returns the status of the app and the host."""

    def status() -> dict[str, Any]:
        return json.loads(host.run("flaskstack sample status --json").stdout)

    return status
