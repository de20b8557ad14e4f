"""A site to ask from outside, and deploys as an operator starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
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
        proxy = "/usr/lib/systemd/systemd-socket-proxyd /srv/fixture/web.sock"
        host.check_output(f"systemd-run --unit=door --socket-property=ListenStream=8000 {proxy}")
    return Site(f"{address}:8000", "fixture.example")


@pytest.fixture
def state(host):
    """Return a function that says what there is of the app; compare it before and after."""

    def state():
        folders = (
            "releases instances instances/* current previous web.sock deploys.jsonl .deploying"
        )
        units = "systemctl list-units 'fixture-*' --state=active --plain --no-legend"
        return host.run(f"cd /srv/fixture; ls -dl --time-style=+ {folders}; ls releases").stdout, {
            line.split()[0] for line in host.check_output(units).splitlines()
        }

    return state


@pytest.fixture
def history(host):
    """Return a function that gives the deploys that the host has noted."""

    def history():
        return [
            json.loads(line)
            for line in host.check_output("cat /srv/fixture/deploys.jsonl").splitlines()
        ]

    return history


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


class Deploys:
    """Runs playbooks/deploy.yml on a source."""

    def command(self, source, *options, **variables):
        """Return the command."""
        variables = {"app_source_folder": str(source)} | variables
        command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"]]
        return [*command, "playbooks/deploy.yml", "-e", json.dumps(variables), *options]

    def process(self, *arguments, **variables):
        """Start a deploy."""
        environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.Popen(
            self.command(*arguments, **variables),
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, source=APP, *options, **variables):
        """Deploy, and return what came out of it."""
        with self.process(source, *options, **variables) as process:
            output, _ = process.communicate()
        return Deploy(process.returncode, ANSI.sub("", output))

    @contextmanager
    def started(self, *arguments, **variables):
        """Start a deploy; yield a function that cuts it."""
        with self.process(*arguments, **variables) as process:
            try:
                yield lambda: os.killpg(process.pid, signal.SIGKILL)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def deploy():
    """Return a function that runs playbooks/deploy.yml on a source."""
    return Deploys()


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
