"""Three users' folders and sites: what each sees from outside, and the playbooks each runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from asking import Site

ROOT = Path(__file__).parents[2]
DOMAINS = {"dice": "dice.example.com", "blog": "blog.example.com", "filedrop": "drop.example.com"}


class Example:
    """One of the apps, as its user has it."""

    def __init__(self, name: str, address: str) -> None:
        """Find what converge.yml has copied."""
        folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "examples"
        self.name = name
        self.inventory = folder / "inventory" / name
        self.source = folder / "docs/examples" / name
        self.site = Site(address, DOMAINS[name])

    def play(self, playbook: str, *options: str) -> str:
        """Run one of the bundle's playbooks and return what it says."""
        command = ["ansible-playbook", "--inventory", self.inventory, playbook, *options]
        quiet = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def deploy(self) -> str:
        """Deploy a new version."""
        (self.source / "version.txt").write_text(f"{os.urandom(8).hex()}\n")
        return self.play("playbooks/deploy.yml")

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
