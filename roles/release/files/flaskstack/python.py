"""The Python interpreters of a host: found, and installed where the distribution lacks one.

No interpreter is run as root that somebody else could replace. One that was installed here is not
run as root at all: its version is the name of its folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.request import urlopen

from flaskstack import sandbox, uv
from flaskstack.errors import RefusedError

ASK = "import platform; print(platform.python_version())"
PYTHONS = Path("/opt/flaskstack/python")
FOLDERS = ("/usr/local/bin", "/usr/bin", f"{PYTHONS}/*/bin", "/opt/*/bin")
HIDDEN = ("home", "media", "mnt", "root", "run", "srv", "tmp", "var")  # from the app
TIMEOUT = 60  # seconds without an answer
DOWNLOADS = [
    "releases.astral.sh",
    "github.com",
    "objects.githubusercontent.com",
    "release-assets.githubusercontent.com",
]
UNPACK = "tar --extract --gzip --strip-components=1 --no-same-owner"
FETCH = """uv python install --quiet --no-bin --install-dir=/tmp/pythons {python}
mv /tmp/pythons/cpython-*.*.*/* ."""
# The tests of the standard library have files that do not compile.
CHECK = """for python in bin/python3.[0-9]*; do case $python in *[0-9]) break ;; esac; done
"$python" -I -S -m compileall -qq lib >/dev/null 2>&1 || true
"$python" -I -c {ask}"""


def find(name: str) -> dict[str, Any]:
    """Return what there is under a name (3.12, python3 or a path).

    Keys: version and executable (both empty when it cannot be used; `reason` says why), machine,
    found (the path of each version that can be used).
    """
    wanted, there = f"python{name}" if name[0].isdecimal() else name, known()
    asked = [Path(wanted)] if "/" in wanted else [path for path in there if path.name == wanted]
    asked = [path.resolve() for path in asked if path.exists()]
    reasons, found = {}, {}
    for path in dict.fromkeys([*asked, *(path.resolve() for path in there)]):
        version = "" if (reason := unusable(path)) else version_of(path)
        reasons[path] = "" if version else reason or "does not run"
        if version:
            found.setdefault(version, str(path))
    usable = [path for path in asked if not reasons[path]]
    return {
        "version": version_of(usable[0]) if usable else "",
        "executable": str(usable[0]) if usable else "",
        "reason": "" if usable else reasons[asked[0]] if asked else "is not there",
        "machine": platform.machine(),
        "found": found,
    }


def known() -> list[Path]:
    """Return the interpreters that programs are usually found as, those installed here newest first."""
    found = [path for folder in FOLDERS for path in Path("/").glob(f"{folder[1:]}/python3*")]
    named = [path for path in found if re.fullmatch(r"python3(\.\d+)?", path.name)]
    newest = {path: [-int(n) for n in re.findall(r"\d+", str(path.parent))] for path in named}
    return sorted((path for path in named if path.exists()), key=newest.__getitem__)


def unusable(executable: Path) -> str:
    """Say why neither root nor the app can use an interpreter, of which this is the real path."""
    for path in (executable, *executable.parents):
        status = path.lstat()
        if status.st_uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"could be replaced by others than root, who may write to {path}"
    if executable.parts[1] in HIDDEN:
        return f"is below /{executable.parts[1]}, which the app does not see"
    return "" if os.access(executable, os.X_OK) else "is no program"


def version_of(executable: Path) -> str:
    """Return the version of an interpreter that is usable; empty when it does not run."""
    if executable.is_relative_to(PYTHONS):
        return executable.relative_to(PYTHONS).parts[0]
    command = [str(executable), "-I", "-c", ASK]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    return "" if done.returncode else done.stdout.strip()


def seen(executable: str) -> list[str]:
    """Return what a sandbox must see besides, so that an interpreter runs there."""
    return [] if executable.startswith(("/usr/", "/opt/")) else [str(Path(executable).parents[1])]


def variables(executable: str) -> dict[str, str]:
    """Name the compiler, which an interpreter that was built elsewhere may call otherwise."""
    return {"CC": "cc", "CXX": "c++"} if executable.startswith(f"{PYTHONS}/") else {}


def install(wanted: dict[str, Any]) -> dict[str, Any]:
    """Install an interpreter that the host lacks, complete or not at all.

    Keys: app, python (such as 3.11), url and checksum (sha256:…; both empty: uv's own build),
    uv_lock, index_url, index_ca. Returns `changed` and `python`, what `find` returns.
    """
    found = find(wanted["python"])
    if found["version"]:
        return {"changed": False, "python": found}
    if not re.fullmatch(r"3\.\d+", wanted["python"]):
        raise RefusedError(
            f"app_python is {wanted['python']}: {found['reason']}, and only a version can be installed",
            'app_python: "3.13"',
        )
    index = uv.Index(wanted["index_url"], wanted["index_ca"])
    settings: dict[str, Any] = {"variables": index.variables, "given": index.files}
    if not wanted["url"]:
        program = uv.install(wanted["uv_lock"], index)
        settings["variables"] |= {"UV_PYTHON_DOWNLOADS": "manual", "PATH": uv.path(program)}
        settings["trusted"] = index.trusted + DOWNLOADS
    PYTHONS.mkdir(parents=True, exist_ok=True)
    with sandbox.opened(wanted["app"], PYTHONS / "new", **settings) as box:
        if wanted["url"]:
            with downloaded(wanted["url"], wanted["checksum"]) as archive:
                box.run("app_python_url: unpacking", UNPACK, stdin=archive)
        else:
            box.run(f"Installing Python {wanted['python']}", FETCH.format(python=wanted["python"]))
        said = box.run("Starting the new Python", CHECK.format(ask=f"'{ASK}'")).strip()
        if not f"{said}.".startswith(f"{wanted['python']}.") or not re.fullmatch(r"[\d.]+", said):
            raise RefusedError(
                f"app_python_url: it holds Python {said}, and app_python is {wanted['python']}",
                f'app_python: "{said.rpartition(".")[0]}"',
            )
        box.keep(PYTHONS / said)
    return {"changed": True, "python": find(wanted["python"])}


@contextmanager
def downloaded(url: str, checksum: str) -> Iterator[BinaryIO]:
    """Have a file of the build that the user names; raises RefusedError when it is another."""
    digest = hashlib.sha256()
    with tempfile.TemporaryFile(dir=PYTHONS) as file:
        try:
            with urlopen(url, timeout=TIMEOUT) as answer:
                while part := answer.read(1024**2):
                    digest.update(part)
                    file.write(part)
        except (OSError, ValueError) as error:
            raise RefusedError(f"app_python_url: {url} cannot be downloaded: {error}") from error
        if digest.hexdigest() != checksum.removeprefix("sha256:"):
            raise RefusedError(
                f"app_python_checksum: {url} has another checksum; take it if you trust that file",
                f"app_python_checksum: sha256:{digest.hexdigest()}",
            )
        file.seek(0)
        yield file
