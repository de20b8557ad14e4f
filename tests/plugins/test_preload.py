"""The callback loads all filters once, before the first task."""

import os
import subprocess
from textwrap import dedent

import pytest

from helpers.repository import ANSIBLE_PLAYBOOK, ROOT

COUNTING = """
from pathlib import Path

with Path(__file__).with_name("loads").open("a") as loads:
    loads.write("x")


class FilterModule:
    def filters(self):
        return {"counted": str.upper}
"""
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - debug: {msg: "{{ 'a' | counted }}"}
    - debug: {msg: "{{ 'b' | counted }}"}
    - debug: {msg: "{{ 'c' | counted }}"}
"""


@pytest.mark.parametrize(("settings", "loads"), [(ROOT / "ansible.cfg", 1), ("none.cfg", 3)])
def test_filters_are_loaded_once_and_not_in_each_task(tmp_path, settings, loads):
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "play.yml").write_text(dedent(PLAYBOOK))
    (tmp_path / "none.cfg").touch()
    variables = {
        "ANSIBLE_CONFIG": str(tmp_path / settings),
        "ANSIBLE_FILTER_PLUGINS": str(tmp_path),
    }
    result = subprocess.run(
        [ANSIBLE_PLAYBOOK, "--inventory=localhost,", tmp_path / "play.yml"],
        env=os.environ | variables,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "ok=3" in result.stdout
    assert len((tmp_path / "loads").read_text()) == loads
