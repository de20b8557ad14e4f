"""The migrations create the tables of the models."""

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from environs import EnvError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the path of a database with a percent sign in its URL."""
    path = tmp_path / "100% new.sqlite"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.chdir(tmp_path)  # Alembic must not depend on the working directory
    return path


@pytest.fixture
def alembic(path):
    """Return Alembic's configuration."""
    return Config(ROOT / "alembic.ini")


def tables(path):
    """Return the names of the tables."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows} - {"alembic_version"}


def test_upgrade_again_and_downgrade(alembic, path):
    for _ in range(2):
        command.upgrade(alembic, "head")
    assert tables(path) == {"notes", "runs", "ticks"}
    command.check(alembic)
    command.downgrade(alembic, "base")
    assert tables(path) == set()


def test_a_missing_url_is_named(alembic, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(EnvError, match="DATABASE_URL"):
        command.upgrade(alembic, "head")
