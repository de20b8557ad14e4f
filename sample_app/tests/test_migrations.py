"""Migrations and models tell the same story."""

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

FOLDER = Path(__file__).parent.parent


@pytest.fixture
def alembic(tmp_path, monkeypatch):
    """Return Alembic's configuration for an empty database whose address holds a percent sign."""
    path = tmp_path / "100% new.sqlite"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.chdir(tmp_path)  # found by the file's place, not by the caller's
    config = Config(FOLDER / "alembic.ini")
    config.attributes["path"] = path
    return config


def tables(config):
    """Return the tables there are."""
    with sqlite3.connect(config.attributes["path"]) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows} - {"alembic_version"}


def test_upgrade_makes_what_the_models_describe(alembic):
    """`alembic check` fails when a model has no migration."""
    command.upgrade(alembic, "head")
    assert tables(alembic) == {"leases", "notes", "runs", "ticks"}
    command.check(alembic)


def test_upgrade_again_changes_nothing(alembic):
    """A deploy may run it any number of times."""
    command.upgrade(alembic, "head")
    command.upgrade(alembic, "head")


def test_downgrade_takes_everything_back(alembic):
    """Every migration has a way back."""
    command.upgrade(alembic, "head")
    command.downgrade(alembic, "base")
    assert tables(alembic) == set()


def test_missing_address_is_named(alembic, monkeypatch):
    """The journal says what to set."""
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(RuntimeError, match="DATABASE_URL is not set"):
        command.upgrade(alembic, "head")
