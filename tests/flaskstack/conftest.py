"""Fixtures for the host program, with a simulated host for an app."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flaskstack import files, sandbox, units, uv
from flaskstack import settings as sets
from flaskstack.settings import Settings
from helpers.builder import LOCK, Builder
from helpers.package_index import Index
from helpers.simulated_host import Host

UV = Path(sys.executable).with_name("uv")
UV_VERSION = subprocess.run([UV, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
UV_VERSION = UV_VERSION.split()[1]

# Stand-in for systemd-run: takes properties, then runs a command in its own environment.
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
[[ $1 != -* ]] || exit 203 # there is no such program
exec "${limit[@]}" "${@//'$$'/'$'}" # of two, systemd makes one
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Return a directory of programs that precedes the others in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def program(tools):
    """Return a function that creates a program in this directory."""

    def put(name, text):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)

    return put


@pytest.fixture
def write_settings(tmp_path, monkeypatch):
    """Return a function that writes a settings set of `shop` and returns its name."""
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
    """Return the directory of `shop`: active `one` with settings `first`, and inactive `two`."""
    root = tmp_path / "srv/shop"
    for release in ("one", "two"):
        (root / "releases" / release / ".venv/bin").mkdir(parents=True)
    (root / "current").symlink_to("releases/one")
    Settings("shop").use(write_settings("first"))
    program("systemd-run", SYSTEMD_RUN)
    return root


@pytest.fixture
def app(tmp_path):
    """Return the source directory of an app."""
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
    """Return a package index with two versions of each package."""
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
    """Return a simulated host without delays."""
    for name in ("ETC", "UNITS", "STAMPS"):
        monkeypatch.setattr(sets, name, tmp_path / name.lower())
    monkeypatch.setattr(units, "children", lambda pid: set())
    monkeypatch.setattr(units.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(units, "is_sleeping", lambda pid: True)
    monkeypatch.setattr(files.os, "fsync", lambda opened: None)
    host = Host(tmp_path)
    monkeypatch.setattr(
        units.Health, "check", lambda health, socket_path, keep_waiting: host.answer(socket_path)
    )
    return host


# Runs a command like systemd in the sandbox, but without its restrictions: the tree under its
# final path, the sandbox's files and its environment.
CONFINED = r"""#!/bin/bash
while [[ $1 != /bin/sh ]]; do
    case $1 in
    --property=BindPaths=*) tree=${1#*=*=} final=${tree#*:} tree=${tree%%:*} final=${final%% *} ;;
    --property=BindReadOnlyPaths=*) [[ $1 =~ ([^ ]+):FILES ]]; ln -sfn "${BASH_REMATCH[1]}" FILES ;;
    --property=EnvironmentFile=*) variables=${1#*=*=} ;;
    esac
    shift
done
[[ ! -e $final ]] || mv "$final" "$tree.before"
mv "$tree" "$final"
cd "$final" && env -i bash -c 'set -a; . "$0"; exec "$@"' "$variables" "${@//'$$'/'$'}"
code=$?
mv "$final" "$tree"
[[ ! -e $tree.before ]] || mv "$tree.before" "$final"
exit "$code"
"""


@pytest.fixture
def sandboxed(tmp_path, monkeypatch, program):
    """Return the directories of app `shop`, with a sandbox that restricts nothing."""
    for name in ("run", "cache", "tools", "root/environments", "root/releases"):
        (tmp_path / name).mkdir(parents=True)
    for name in [name for name in os.environ if re.match("PIP_|UV_|SSL_", name)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sandbox, "MEMORY", tmp_path / "run")
    monkeypatch.setattr(sandbox, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sandbox, "FILES", f"{tmp_path}/files")
    monkeypatch.setattr(sandbox, "build_account", lambda app: pwd.getpwuid(os.getuid()))
    monkeypatch.setattr(uv, "TOOLS", tmp_path / "tools")
    if os.getuid():
        monkeypatch.setattr(os, "chown", lambda *known: None)
        monkeypatch.setattr(os, "lchown", lambda *known: None)
    program("systemd-run", CONFINED.replace("FILES", f"{tmp_path}/files"))
    program("systemctl", "#!/bin/sh\n")
    program("nft", '#!/bin/sh\necho "$@" >>"$0.log"; [ "$1" != --file ] || cat >>"$0.log"\n')
    (tmp_path / f"tools/uv-{UV_VERSION}").mkdir()
    (tmp_path / f"tools/uv-{UV_VERSION}/uv").symlink_to(UV)
    umask = os.umask(0o022)
    yield tmp_path
    os.umask(umask)
    assert not list((tmp_path / "run").iterdir()), "files of a sandbox are left"
    assert not list((tmp_path / "root").glob("*/.*")), "the folder of a sandbox is left"


@pytest.fixture
def host_wants(sandboxed):
    """Return the parameters common to all calls: the app, and how to install packages."""
    return {
        "app": "shop",
        "root": str(sandboxed / "root"),
        "uv_lock": f"uv=={UV_VERSION} \\\n    --hash=sha256:00\n",
        "index_url": "",
        "index_ca": "",
    }
