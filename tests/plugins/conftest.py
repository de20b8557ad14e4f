"""What is built in tests: a small app, and releases of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from releasing import LOCK, Builder, Index


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return the folder of an app."""
    folder = tmp_path / "app"
    (folder / "shop/static").mkdir(parents=True)
    (folder / "shop/web.py").write_text("app = 1\n")
    (folder / "shop/static/site.css").write_text("a {}\n")
    (folder / "requirements.lock").write_text(LOCK)
    (folder / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\n')
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Builder:
    """Return a function that builds a release."""
    return Builder(tmp_path / "cache")


@pytest.fixture
def build(pack: Builder) -> partial:
    """Return a function that looks what a release would be."""
    return partial(pack, look=True)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Return an index of packages that has two of everything."""
    index = Index(tmp_path / "index")
    index.add("gunicorn", "27.0.0", "packaging")
    index.add("gunicorn", "28.0.0", "packaging>=2")
    for version in ("1.0", "2.0"):
        index.add("packaging", version)
    index.add("flask", "3.0", "jinja>=3", "asgiref ; extra == 'async'")
    index.add("flask", "3.1", "jinja>=3", "asgiref ; extra == 'async'")
    index.add("jinja", "3.0")
    index.add("jinja", "3.1")
    index.add("asgiref", "1.0")
    return index
