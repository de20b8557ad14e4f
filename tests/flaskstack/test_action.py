"""The program is copied to a host as one file, installed there once, and called by Ansible."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flaskstack.controller import program
from flaskstack.settings import name_of
from helpers.repository import ROOT

PLAY = """
- hosts: all
  gather_facts: false
  vars:
    word: "new"
    again: "{{ word }} {{ other | default('') }}"
  tasks:
    - flaskstack:
        call: migrations
        params: {from: ROOT, to: ROOT, paths: []}
      check_mode: true
    - stat: {path: FOLDER/local/lib}
      register: installed
      failed_when: installed.stat.exists
    - flaskstack:
        call: lock
        params: {root: ROOT, timeout: 60, lock_for: two}
    - flaskstack:
        call: settings
        params: {root: ROOT, app: flaskstack-test, user: nobody, release: {}}
        templates:
          - {path: environment, src: FOLDER/environment.j2, vars: {other: "{{ word }}er"}}
          - {path: files/app.ini, src: FOLDER/app.ini}
      check_mode: true
      register: settings
    - flaskstack:
        call: build
        params: {root: ROOT, app: flaskstack-test}
        files: {archive: FOLDER/app.ini}
      check_mode: true
    - flaskstack:
        call: migrations
        params: {from: ROOT, to: ROOT, paths: []}
      register: between
    - copy:
        content: "{{ [settings.name, between] | to_json }}"
        dest: FOLDER/answers
    - block:
        - flaskstack:
            call: python
            params: {root: ROOT, app: flaskstack-test, python: python9.9}
      rescue:
        - debug: {msg: refused}
    - flaskstack:
        call: hidden-call
        params: {root: ROOT}
        secrets: [hidden-call]
"""


@pytest.fixture
def packed(tmp_path):
    """Return the packed program."""
    name, content = program.pack()
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_the_packed_program_contains_every_call(packed):
    find = "import sys; sys.path[0] = sys.argv[1]; from flaskstack.calls import CALLS; import "
    find += "importlib as i; [getattr(i.import_module('flaskstack.' + (p := w.partition(':'))[0]), "
    find += "p[2]) for w in CALLS.values()]; print(i.import_module('flaskstack').__file__)"
    shown = subprocess.run(
        [sys.executable, "-I", "-c", find, packed], capture_output=True, text=True
    )
    assert shown.stdout.startswith(str(packed)), shown.stderr


def test_the_same_content_makes_the_same_file(packed, tmp_path, monkeypatch):
    assert program.pack() == (packed.name, packed.read_bytes())
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in program.PACKAGE.glob("*.py"):
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(program, "PACKAGE", copy)
    assert program.pack()[0] == packed.name
    (copy / "lock.py").write_text("# other")
    assert program.pack()[0] != packed.name


def test_controller_code_is_not_packed(packed):
    names = zipfile.ZipFile(packed).namelist()
    assert {"__main__.py", "flaskstack/__main__.py", "flaskstack/change.py"} <= set(names)
    assert not [name for name in names if "controller" in name]
    assert len(names) == len(set(names))


@pytest.fixture
def library(tmp_path):
    """Return a directory with the module, which keeps its program below tmp_path."""
    (tmp_path / "library").mkdir()
    text = (ROOT / "plugins/modules/flaskstack.py").read_text()
    assert text.count("/usr/local/") == 2
    text = text.replace("/usr/local/", f"{tmp_path}/local/")
    (tmp_path / "library/flaskstack.py").write_text(text)
    (tmp_path / "local/bin").mkdir(parents=True)
    return tmp_path / "library"


def test_the_newest_programs_are_kept_and_the_command_uses_the_latest(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("module", ROOT / "plugins/modules/flaskstack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "lib")
    monkeypatch.setattr(module, "COMMAND", tmp_path / "flaskstack")
    (tmp_path / "source").write_text("program")
    for number in range(1, 6):
        module.install(tmp_path / "source", tmp_path / f"lib/flaskstack-{number}.pyz")
        os.utime(tmp_path / f"lib/flaskstack-{number}.pyz", (number, number))
    kept = sorted(path.name for path in (tmp_path / "lib").iterdir())
    assert kept == [f"flaskstack-{number}.pyz" for number in (3, 4, 5)]
    assert os.readlink(tmp_path / "flaskstack").endswith("flaskstack-5.pyz")


def test_ansible_installs_and_calls_the_program(library, tmp_path):
    (tmp_path / "srv").mkdir()
    (tmp_path / "environment.j2").write_text("{{ ansible_managed | comment }}\nSET={{ again }}\n")
    (tmp_path / "app.ini").write_text("{% for one in [1, 2] %}\n{{ one }}\n{% endfor %}\n")
    text = PLAY.replace("ROOT", str(tmp_path / "srv")).replace("FOLDER", str(tmp_path))
    (tmp_path / "play.yml").write_text(text)
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(library),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_STRATEGY": "linear",
    }
    (tmp_path / "hosts").write_text("localhost\n")
    options = [
        "-i",
        str(tmp_path / "hosts"),
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    ansible = Path(sys.executable).with_name("ansible-playbook")
    result = subprocess.run(
        [ansible, *options, tmp_path / "play.yml", "-vv"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    shown = result.stdout + result.stderr
    assert "flaskstack ******** ended early" in shown, shown
    set_it = f"Set it in {tmp_path}/group_vars/all/main.yml, for example: app_python: "
    assert set_it in " ".join(shown.split()), shown
    name, between = json.loads((tmp_path / "answers").read_text())
    texts = {"environment": "# Ansible managed\nSET=new newer\n", "files/app.ini": "1\n2\n"}
    texts["environment"] = texts["environment"].replace("# A", "#\n# A").replace("d\n", "d\n#\n")
    assert name == name_of(texts)
    assert between["files"] == []
    assert "hidden-call" not in shown
    known = json.loads((tmp_path / "srv/deploy.json").read_text())
    assert known["release"] == "two"
    assert "@" in known["by"]
    (installed,) = (tmp_path / "local/lib/flaskstack").iterdir()
    assert installed.name == program.pack()[0]
    assert installed.stat().st_mode & 0o777 == 0o755
    command = subprocess.run([tmp_path / "local/bin/flaskstack", "--help"], capture_output=True)
    assert b"rollback" in command.stdout, command.stderr
