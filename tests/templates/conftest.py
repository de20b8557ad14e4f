"""Fixtures for tests of templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from helpers import templates


@pytest.fixture
def render() -> Callable[..., str]:
    """Return `render(role, template, **variables)`, which returns the rendered text."""
    return templates.render


@pytest.fixture
def evaluate() -> Callable[..., Any]:
    """Return `evaluate(role, expression, **variables)`, which returns the value."""
    return templates.evaluate
