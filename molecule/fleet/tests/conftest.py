"""A fleet to ask from outside, and playbooks as an operator starts them."""

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
import testinfra

from asking import Site

ROOT = Path(__file__).parents[3]
APP = ROOT / "sample_app"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
JUNK = shutil.ignore_patterns(".venv", "__pycache__", ".pytest_cache", "tests")


@pytest.fixture(scope="session")
def fleet():
    """Return the hosts by name."""
    options = {"ansible_inventory": os.environ["MOLECULE_INVENTORY_FILE"], "sudo": True}
    names = ("app-1", "app-2", "data")
    return {name: testinfra.get_host(f"ansible://{name}", **options) for name in names}


@pytest.fixture(scope="session")
def sites(fleet):
    """Return the site of each app host."""
    hosts = {name: host for name, host in fleet.items() if name != "data"}
    return {
        name: Site(host.ansible.get_variables()["ansible_host"], "localhost")
        for name, host in hosts.items()
    }


@pytest.fixture
def serving(fleet):
    """Return a function that says which release serves on each app host."""

    def serving():
        return {
            name: fleet[name].check_output("readlink /srv/sample/current").removeprefix("releases/")
            for name in ("app-1", "app-2")
        }

    return serving


@dataclass
class Run:
    """What came out of a playbook."""

    code: int
    output: str

    @property
    def changed(self):
        """Say how many tasks changed something."""
        return sum(map(int, re.findall(r"changed=(\d+)", self.output)))

    @property
    def text(self):
        """Return the output as if it had no lines."""
        return " ".join(self.output.split())


def start(playbook, *options, **variables):
    """Start a playbook."""
    command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"]]
    command += [f"playbooks/{playbook}.yml", "-e", json.dumps(variables), *options]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process):
    """Wait for a playbook's end."""
    output, _ = process.communicate()
    return Run(process.returncode, ANSI.sub("", output))


@pytest.fixture
def starting():
    """Return a function that starts a playbook which goes on; it is killed at the end."""
    processes = []

    def starting(*arguments, **variables):
        processes.append(start(*arguments, **variables))
        return processes[-1]

    yield starting
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def play():
    """Return a function that runs a playbook to its end."""

    def play(*arguments, **variables):
        return ended(start(*arguments, **variables))

    return play


@pytest.fixture(scope="session")
def deploy(play):
    """Return a function that deploys a source."""

    def deploy(source=APP, *options, **variables):
        return play("deploy", *options, app_source_folder=str(source), **variables)

    return deploy


numbers = count()


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """Return a function that makes another version of the app, with files added to it."""
    below = tmp_path_factory.mktemp("versions")

    def version(new="", **files):
        folder = below / f"app{next(numbers)}"
        shutil.copytree(APP, folder, ignore=JUNK)
        (folder / "version.txt").write_text(f"{os.urandom(8).hex()}\n")
        web = folder / "sample_app/web/__init__.py"
        web.write_text(f"{web.read_text()}\n{new}\n")
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder

    return version
