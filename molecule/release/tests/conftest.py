"""A site to ask from outside, and deploys as an operator starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from asking import Site

ROOT = Path(__file__).parents[3]
APP = ROOT / "molecule/release/files/app"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def site(host, address):
    """Return the site, through a door that is to its socket what nginx is."""
    if not host.service("door.socket").is_running:
        proxy = "/usr/lib/systemd/systemd-socket-proxyd /run/fixture/web.sock"
        host.check_output(f"systemd-run --unit=door --socket-property=ListenStream=8000 {proxy}")
    return Site(f"{address}:8000", "fixture.example")


@pytest.fixture
def current(host):
    """Return a function that names the release in use."""

    def current():
        return host.check_output("readlink /srv/fixture/current").removeprefix("releases/")

    return current


@dataclass
class Deploy:
    """What came out of a deploy."""

    code: int
    output: str

    @property
    def changed(self):
        """Say how many tasks changed something."""
        return int(re.search(r"changed=(\d+)", self.output).group(1))


@pytest.fixture
def deploy():
    """Return a function that runs playbooks/deploy.yml on a source."""

    def deploy(source=APP, *options, **variables):
        variables = {"app_source_folder": str(source)} | variables
        command = [
            "ansible-playbook",
            "-i",
            os.environ["MOLECULE_INVENTORY_FILE"],
            "playbooks/deploy.yml",
        ]
        command += ["-e", json.dumps(variables), *options]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        return Deploy(done.returncode, ANSI.sub("", done.stdout + done.stderr))

    return deploy


numbers = count()


@pytest.fixture
def version(tmp_path):
    """Return a function that makes a new version of the app, with `new` for `old` in a file."""

    def version(file="web.py", old="", new=""):
        folder = tmp_path / f"app{next(numbers)}"
        shutil.copytree(APP, folder)
        (folder / "version.txt").write_text(f"{os.urandom(8).hex()}\n")
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
        return folder

    return version
