"""The program of the hosts, and an app on a host of its own."""

from __future__ import annotations

import os

import pytest

from flaskstack import settings as sets
from flaskstack.settings import Settings

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
