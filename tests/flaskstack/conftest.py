"""The program of the hosts, and an app on a host of its own."""

from __future__ import annotations

import os

import pytest

from building import LOCK, Builder, Index
from flaskstack import settings as sets
from flaskstack import units
from flaskstack.settings import Settings
from played_host import Host

# What systemd-run is to the program: properties, then a command in an environment of its own.
SYSTEMD_RUN = r"""#!/bin/bash
printf '%s\n' "$@" >"${0%/*}/started"
while [[ $1 != -- ]]; do
    case $1 in
    --property=EnvironmentFile=-*) [[ ! -e ${1#*=*=-} ]] || files+=("${1#*=*=-}") ;;
    --property=EnvironmentFile=*) files+=("${1#*=*=}") ;;
    --property=RuntimeMaxSec=*) limit=(timeout "${1##*=}") ;;
    --working-directory=*) cd "${1#*=}" || exit ;;
    esac
    shift
done
set -a
for file in "${files[@]}"; do . "$file"; done
shift
exec "${limit[@]}" "${@//'$$'/'$'}" # of two, systemd makes one
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Return a folder of programs that come before those of this machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def program(tools):
    """Return a function that puts a program there."""

    def put(name, text):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    return put


@pytest.fixture
def write_settings(tmp_path, monkeypatch):
    """Return a function that writes a set of settings of `shop`, and returns its name."""
    (tmp_path / "etc/shop").mkdir(parents=True)
    monkeypatch.setattr(sets, "ETC", tmp_path / "etc")
    monkeypatch.setattr(sets, "UNITS", tmp_path / "units")
    using = f"EnvironmentFile={tmp_path}/etc/shop/current/environment"

    def write(value, release=None, **files):
        files |= {"environment": f'SET="{value}"\n'}
        files |= {"commands.conf": f"# confined\n[Service]\nSlice=shop%%1.slice\n{using}\n"}
        return Settings("shop").write(files, release or {}, -1)

    return write


@pytest.fixture
def root(tmp_path, program, write_settings):
    """Return the folder of `shop`: release `one` serves with settings `first`; `two` is there."""
    root = tmp_path / "srv/shop"
    for release in ("one", "two"):
        (root / "releases" / release / ".venv/bin").mkdir(parents=True)
    (root / "current").symlink_to("releases/one")
    Settings("shop").use(write_settings("first"))
    program("systemd-run", SYSTEMD_RUN)
    return root


@pytest.fixture
def app(tmp_path):
    """Return the source of an app."""
    folder = tmp_path / "app"
    (folder / "shop/static").mkdir(parents=True)
    (folder / "shop/web.py").write_text("app = 1\n")
    (folder / "shop/static/site.css").write_text("a {}\n")
    (folder / "requirements.lock").write_text(LOCK)
    (folder / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\n')
    return folder


@pytest.fixture
def pack(tmp_path):
    """Return a function that builds a release."""
    return Builder(tmp_path / "cache")


@pytest.fixture
def index(tmp_path):
    """Return an index of packages that has two of everything."""
    index = Index(tmp_path / "index")
    index.add("gunicorn", "27.0.0", "packaging")
    index.add("gunicorn", "28.0.0", "packaging>=2")
    for name in ("packaging 1.0", "packaging 2.0", "jinja 3.0", "jinja 3.1", "asgiref 1.0"):
        index.add(*name.split())
    for version in ("3.0", "3.1"):
        index.add("flask", version, "jinja>=3", "asgiref ; extra == 'async'")
    return index


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a played host, on which nothing has to be waited for."""
    for name in ("ETC", "UNITS", "STAMPS", "BIN"):
        monkeypatch.setattr(sets, name, tmp_path / name.lower())
    monkeypatch.setattr(units, "children", lambda pid: set())
    monkeypatch.setattr(units.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(units, "asleep", lambda pid: True)
    host = Host(tmp_path)
    monkeypatch.setattr(units.Health, "ask", lambda health, door, patience: host.answer(door))
    return host
