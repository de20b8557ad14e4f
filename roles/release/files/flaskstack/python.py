"""Find Python interpreters on a host, and install one that the distribution lacks.

As root, this runs only interpreters that no other account can replace; `uv python find` would run
all. Interpreters installed here are not run either: the version is in the name of their folder.
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
from flaskstack.errors import ValidationError

ASK = "import platform; print(platform.python_version())"
PYTHONS = Path("/opt/flaskstack/python")
FOLDERS = ("/usr/local/bin", "/usr/bin", f"{PYTHONS}/*/bin", "/opt/*/bin")
TIMEOUT = 60  # seconds without an answer
DOWNLOADS = [
    "releases.astral.sh",
    "github.com",
    "objects.githubusercontent.com",
    "release-assets.githubusercontent.com",
]
UNPACK = "tar --extract --gzip --strip-components=1 --no-same-owner"
FETCH = """uv python install --no-bin --install-dir=/tmp/pythons {python}
mv /tmp/pythons/cpython-*.*.*/* ."""
# Some tests of the standard library do not compile.
CHECK = """for python in bin/python3.[0-9]*; do case $python in *[0-9]) break ;; esac; done
"$python" -I -S -m compileall -qq lib >/dev/null 2>&1 || true
"$python" -I -c {ask}"""
# For platforms that uv has no build for.
OWN_BUILD = (
    "Without app_python the app gets the host's own Python. Otherwise provide a .tar.gz with "
    "python/bin/python3 where the host can reach it, and its checksum, for example: "
    "app_python_url: https://files.example.com/cpython-{python}-x86_64.tar.gz"
)


def find(name: str) -> dict[str, Any]:
    """Return the interpreter for a name (3.12, python3 or a path).

    Keys: version and executable (both empty when unusable; `reason` explains why), machine,
    found (the path of each usable version).
    """
    program, there = f"python{name}" if name[0].isdecimal() else name, known()
    named = [Path(program)] if "/" in program else [path for path in there if path.name == program]
    named = [path.resolve() for path in named if path.exists()]
    versions: dict[Path, str] = {}
    for path in dict.fromkeys([*named, *(path.resolve() for path in there)]):
        versions[path] = "" if unusable(path) else version_of(path)
    chosen = next((path for path in named if versions[path]), None)
    reasons = [unusable(path) or "does not run" for path in named] or ["is not there"]
    return {
        "version": versions[chosen] if chosen else "",
        "executable": str(chosen or ""),
        "reason": "" if chosen else reasons[0],
        "machine": platform.machine(),
        "found": {version: str(path) for path, version in versions.items() if version},
    }


def known() -> list[Path]:
    """Return candidate interpreters; those installed here come newest first."""
    found = [path for folder in FOLDERS for path in Path("/").glob(f"{folder[1:]}/python3*")]
    named = [path for path in found if re.fullmatch(r"python3(\.\d+)?", path.name)]
    newest = {path: [-int(n) for n in re.findall(r"\d+", str(path.parent))] for path in named}
    return sorted((path for path in named if path.exists()), key=newest.__getitem__)


def unusable(executable: Path) -> str:
    """Return why root and the app cannot use an interpreter, given by its real path."""
    for path in (executable, *executable.parents):
        status = path.lstat()
        if status.st_uid or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"can be replaced by other users than root, who may write to {path}"
    if executable.parts[1] not in ("opt", "usr"):
        return "must be below /opt or /usr, since neither builds nor the app see other folders"
    return "" if os.access(executable, os.X_OK) else "is not executable"


def version_of(executable: Path) -> str:
    """Return the version of a usable interpreter; empty when it does not run."""
    if executable.is_relative_to(PYTHONS):
        return executable.relative_to(PYTHONS).parts[0]
    command = [str(executable), "-I", "-c", ASK]
    result = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    return "" if result.returncode else result.stdout.strip()


def variables(executable: str) -> dict[str, str]:
    """Return variables that set the compiler; an interpreter built elsewhere may name another."""
    return {"CC": "cc", "CXX": "c++"} if executable.startswith(f"{PYTHONS}/") else {}


def install(params: dict[str, Any]) -> dict[str, Any]:
    """Install an interpreter that the host lacks, atomically.

    Keys: app, python (such as 3.11), url and checksum (sha256:…; both empty: uv's own build),
    uv_lock, index_url, index_ca. Returns `changed` and `python` (the result of `find`).
    """
    found = find(params["python"])
    if found["version"]:
        return {"changed": False, "python": found}
    if not re.fullmatch(r"3\.\d+", params["python"]):
        raise ValidationError(
            f"app_python is {params['python']}: {found['reason']}, and is not a version number.",
            'app_python: "3.13"',
        )
    index = uv.Index(params["index_url"], params["index_ca"])
    settings: dict[str, Any] = {"variables": index.variables, "inputs": index.files}
    if not params["url"]:
        program = uv.install(params["uv_lock"], index)
        settings["variables"] |= {"UV_PYTHON_DOWNLOADS": "manual", "PATH": uv.path(program)}
        settings["trusted"] = index.trusted + DOWNLOADS
    PYTHONS.mkdir(parents=True, exist_ok=True)
    with sandbox.opened(params["app"], PYTHONS / "new", **settings) as box:
        if params["url"]:
            with downloaded(params["url"], params["checksum"]) as archive:
                box.run("app_python_url: unpacking", UNPACK, stdin=archive)
        else:
            step = f"app_python: installing {params['python']}, which the host lacks,"
            cure = OWN_BUILD.format(python=params["python"])
            box.run(step, FETCH.format(python=params["python"]), lambda output: cure)
        version = box.run("Starting the new Python", CHECK.format(ask=f"'{ASK}'")).strip()
        if not re.fullmatch(rf"{re.escape(params['python'])}\.[\d.]+", version):
            raise ValidationError(
                f"app_python_url: the archive has Python {version}, not {params['python']}.",
                f'app_python: "{version.rpartition(".")[0]}"',
            )
        box.keep(PYTHONS / version)
    return {"changed": True, "python": find(params["python"])}


@contextmanager
def downloaded(url: str, checksum: str) -> Iterator[BinaryIO]:
    """Download the user's build. Raises ValidationError when the checksum differs."""
    digest = hashlib.sha256()
    with tempfile.TemporaryFile(dir=PYTHONS) as file:
        try:
            with urlopen(url, timeout=TIMEOUT) as answer:
                while part := answer.read(1024**2):
                    digest.update(part)
                    file.write(part)
        except (OSError, ValueError) as error:
            raise ValidationError(f"app_python_url: {url} cannot be downloaded: {error}") from error
        if digest.hexdigest() != checksum.removeprefix("sha256:"):
            raise ValidationError(
                f"app_python_checksum: {url} has another checksum. If you trust that file,",
                f"app_python_checksum: sha256:{digest.hexdigest()}",
            )
        file.seek(0)
        yield file
