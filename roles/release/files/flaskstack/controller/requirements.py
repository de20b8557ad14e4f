"""What an app asks for: its requirements files, read with all that they include."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaskstack.errors import RefusedError

INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[ =]*(\S.*)")
LOCAL = re.compile(r"-e\b|--editable\b|\.{0,2}/|\.$|(?:\S+ *@ *)?file:")
PYLOCK = re.compile(r"pylock\.([^.]+\.)?toml")


@dataclass
class Requirements:
    """Lines as pip reads them, each whole."""

    lines: list[str] = field(default_factory=list)  # what is asked for
    options: list[str] = field(default_factory=list)  # how, such as --extra-index-url
    unlocked: list[str] = field(default_factory=list)  # files that leave anything open
    read: list[Path] = field(default_factory=list)  # files that were read for this


def kind(name: str) -> str:
    """Say what sort of file a name means."""
    last = name.rsplit("/", 1)[-1]
    if last in ("uv.lock", "pyproject.toml"):
        return last
    return "pylock.toml" if PYLOCK.fullmatch(last) else "requirements.txt"


def logical_lines(text: str) -> list[str]:
    """Join what goes on in the next line, and leave out comments."""
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [re.sub(r"\s+", " ", line) for line in bare if line]


def name_of(line: str) -> str:
    """Return the normalized name of what a line asks for."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def is_locked(line: str) -> bool:
    """Say whether a line can only mean files that are known."""
    return "--hash=" in line


def read_file(app: Path, name: str, into: Requirements) -> None:
    """Read a file in pip's format, and those that it includes."""
    path = app / name
    if path in into.read:
        return
    into.read.append(path)
    for line in logical_lines(path.read_text()):
        if found := INCLUDE.fullmatch(line):
            included = (path.parent / found.group(1).strip()).resolve()
            if not included.is_relative_to(app.resolve()) or not included.is_file():
                raise RefusedError(
                    f"app_requirements: {name} includes {found.group(1)}, which is no file of the "
                    "app's source. What comes from elsewhere is given by app_constraints and "
                    "app_extra_requirements.",
                    "app_extra_requirements: [gunicorn]",
                )
            below = into if line.startswith(("-r", "--r")) else Requirements(read=into.read)
            read_file(app.resolve(), str(included.relative_to(app.resolve())), below)
        elif LOCAL.match(line):
            raise RefusedError(
                f"app_requirements: {name} asks for {line!r}, which hosts do not have. If that is "
                "the app itself, leave the line out; to have the app installed, too,",
                "app_install_project: true",
            )
        elif line.startswith("-"):
            known = [*into.options, "--require-hashes"]  # which is asked for where it can be
            into.options += [line] if line not in known else []
        else:
            into.lines += [line] if line not in into.lines else []
            if not is_locked(line) and name not in into.unlocked:
                into.unlocked.append(name)


def read_pylock(app: Path, name: str, into: Requirements) -> None:
    """Read a lock of the standard format (PEP 751)."""
    into.read.append(app / name)
    lock = read_toml(app / name)
    for package in lock.get("packages", []):
        marker = package.get("marker", "")
        if re.search(r"\b(extras|dependency_groups)\b", marker) or "version" not in package:
            raise RefusedError(
                f"app_requirements: {name} locks {package['name']} with extras, with groups or from"
                " a folder or repository, which pip does not install. Lock for the site alone.",
                "app_requirements: requirements.lock",
            )
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        hashes = sorted(
            f"--hash={algorithm}:{digest}"
            for file in files
            for algorithm, digest in file.get("hashes", {}).items()
            if algorithm in ("sha256", "sha384", "sha512")
        )
        pin = f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "")
        into.lines.append(" ".join([pin, *hashes]))


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds; nothing, when there is none."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise RefusedError(f"{path.name} of the app cannot be read: {error}") from error


def read_requires_python(app: Path, names: list[str]) -> str:
    """Return which versions of Python the app and its locks say that they are for."""
    said = [read_toml(app / "pyproject.toml").get("project", {}).get("requires-python", "")]
    said += [
        read_toml(app / name).get("requires-python", "")
        for name in names
        if kind(name) in ("uv.lock", "pylock.toml")
    ]
    return ",".join(dict.fromkeys(part.replace(" ", "") for part in said if part))


def check_files(app: Path, names: list[str]) -> None:
    """Refuse files that are not there."""
    for name in names:
        if not (app / name).resolve().is_relative_to(app.resolve()) or not (app / name).is_file():
            there = sorted(
                path.name
                for pattern in ("*requirements*", "pyproject.toml", "*lock*")
                for path in app.glob(pattern)
                if path.is_file()
            )
            raise RefusedError(
                f"app_requirements: the app has no file {name}; it has "
                f"{', '.join(dict.fromkeys(there)) or 'nothing that looks like one'}.",
                f"app_requirements: {next(iter(there), 'requirements.txt')}",
            )
