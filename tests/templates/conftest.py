"""What the tests of templates use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import rendering


@pytest.fixture
def render() -> Callable[..., str]:
    """Give `render(role, template, **variables)`: the text that the role would put on a host."""
    return rendering.render


@pytest.fixture
def evaluate() -> Callable[..., Any]:
    """Give `evaluate(role, expression, **variables)`: the value of an expression in the role."""
    return rendering.evaluate
