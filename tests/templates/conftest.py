"""What the tests of templates use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from helpers import templates


@pytest.fixture
def render() -> Callable[..., str]:
    """Give `render(role, template, **variables)`: the text that the role would put on a host."""
    return templates.render


@pytest.fixture
def evaluate() -> Callable[..., Any]:
    """Give `evaluate(role, expression, **variables)`: the value of an expression in the role."""
    return templates.evaluate
