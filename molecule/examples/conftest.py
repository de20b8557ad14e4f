"""Three users' folders and sites: what each sees from outside, and the playbooks each runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asking import Site
from deploying import Done, Operator

DOMAINS = {"dice": "dice.example.com", "blog": "blog.example.com", "filedrop": "drop.example.com"}


class Example:
    """One of the apps, as its user has it."""

    def __init__(self, name: str, address: str) -> None:
        """Find what converge.yml has copied."""
        folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "examples"
        self.name = name
        self.inventory = folder / "inventory" / name
        self.operator = Operator(str(self.inventory))
        self.source = folder / "docs/examples" / name
        self.site = Site(address, DOMAINS[name])

    def play(self, playbook: str, *options: str) -> Done:
        """Run one of the bundle's playbooks, which succeeds."""
        done = self.operator.play(playbook, *options)
        assert done.code == 0, done.output
        return done

    def deploy(self) -> Done:
        """Deploy a new version."""
        (self.source / "version.txt").write_text(f"{os.urandom(8).hex()}\n")
        return self.play("deploy")

    def secret(self, name: str) -> str:
        """Return a secret that was made for this inventory."""
        return (self.inventory / f"secrets/{name}.txt").read_text().strip()


@pytest.fixture
def dice(address):
    """Return the app of a single file."""
    return Example("dice", address)


@pytest.fixture
def blog(address):
    """Return the app with a database in its instance folder."""
    return Example("blog", address)


@pytest.fixture
def filedrop(address):
    """Return the app with uploads and events."""
    return Example("filedrop", address)
