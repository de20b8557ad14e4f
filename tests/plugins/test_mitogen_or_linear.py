"""The strategy of a run: with mitogen, tasks share one Python interpreter."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

import pytest

from helpers.repository import ANSIBLE_PLAYBOOK, ROOT

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - {command: "sh -c 'echo interpreter $PPID'"}
    - {command: "sh -c 'echo interpreter $PPID'"}
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - {command: "sh -c 'echo interpreter $PPID'"}
"""
NOTICE = "Mitogen is not used"
# Python imports this module when it starts.
AT_START = "sitecustomize.py"
MISSING = """
import sys
sys.modules["ansible_mitogen"] = None
"""
NEWER = """
import ansible.release
ansible.release.__version__ = "2.99.0"
"""


@dataclass
class Run:
    """Output of a playbook run."""

    output: str

    @property
    def shared(self):
        """Whether one interpreter ran all tasks."""
        interpreters = re.findall(r"interpreter (\d+)", self.output)
        assert len(interpreters) == 3, self.output
        return len(set(interpreters)) == 1

    @property
    def notices(self):
        return [line for line in self.output.splitlines() if "itogen" in line]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the playbook with the repository's ansible.cfg."""

    def run(at_start="", **environment):
        (tmp_path / "play.yml").write_text(PLAYBOOK)
        (tmp_path / AT_START).write_text(at_start)
        own = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, "--inventory=localhost,", "-v", tmp_path / "play.yml"],
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return Run(done.stdout)

    return run


def test_mitogen_is_used_where_it_is_installed(run):
    done = run()
    assert done.shared
    assert done.notices == []


@pytest.mark.parametrize(
    ("at_start", "reason"),
    [(MISSING, "ansible_mitogen"), (NEWER, "it does not support ansible-core 2.99.0")],
    ids=["missing", "newer ansible-core"],
)
def test_fallback_to_linear_prints_one_line(run, at_start, reason):
    done = run(at_start)
    assert not done.shared
    (notice,) = done.notices
    assert notice.startswith(NOTICE)
    assert reason in notice


def test_mitogen_can_be_disabled(run):
    done = run(ANSIBLE_STRATEGY="linear")
    assert not done.shared
    assert done.notices == []


@pytest.mark.parametrize(
    ("own", "checking"), [("", "accept-new"), ("-o StrictHostKeyChecking=yes", "yes")]
)
def test_host_key_checking_follows_the_ssh_arguments(tmp_path, own, checking):
    """OpenSSH uses the first value of an option."""
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked; exit 255\n')
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "play.yml").write_text("- {hosts: all, gather_facts: false, tasks: [{ping: }]}")
    more = [f"--extra-vars=ansible_ssh_common_args='{own}'"] if own else []
    done = subprocess.run(
        [ANSIBLE_PLAYBOOK, "--inventory=new,", *more, tmp_path / "play.yml"],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_SSH_EXECUTABLE": str(tmp_path / "ssh"),
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    said = re.findall(r"StrictHostKeyChecking[= ](\S+)", (tmp_path / "asked").read_text())
    assert said[0] == checking
