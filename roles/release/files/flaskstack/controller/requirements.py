"""Read an app's requirements files and the files that they include.

uv would read included files outside of the app's source, and resolve lock files again.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.pylock import Pylock, PylockValidationError, is_valid_pylock_path
from packaging.utils import canonicalize_name

from flaskstack.errors import ValidationError

INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[ =]*(\S.*)")
EDITABLE = re.compile(r"^(?:-e\b|--editable\b)[ =]*")
LOCAL = re.compile(r"\.{0,2}/|\.$|(?:\S+ *@ *)?(git\+)?file:")
# Files that uv does not read, and the command that converts each.
INSTEAD = {
    "poetry.lock": "poetry export --output=requirements.lock`, or `uvx migrate-to-uv` and `uv lock",
    "pdm.lock": "pdm export --output=requirements.lock",
    "Pipfile.lock": "pipenv requirements --hash > requirements.lock",
    "environment.yml": "pip list --format=freeze > requirements.lock",
}


@dataclass
class Requirements:
    """Requirements, as lines in pip's format."""

    lines: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)  # such as --extra-index-url
    constraints: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)  # files with unpinned requirements
    read: list[Path] = field(default_factory=list)


def kind(name: str) -> str:
    """Return the format of a file, by its name."""
    path = Path(name)
    if path.name in ("uv.lock", "pyproject.toml", *INSTEAD):
        return path.name
    return "pylock.toml" if is_valid_pylock_path(path) else "requirements.txt"


def logical_lines(text: str) -> list[str]:
    """Join continued lines, and remove comments."""
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [re.sub(r"\s+", " ", line) for line in bare if line]


def name_of(line: str) -> str:
    """Return the normalized package name of a line."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return canonicalize_name(found[0]) if found else ""


def is_locked(line: str) -> bool:
    """Return whether a line pins its files by hash."""
    return "--hash=" in line


def check_file(app: Path, name: str) -> None:
    """Raise ValidationError for a file that is missing or that uv does not read."""
    poetry = kind(name) == "pyproject.toml" and "poetry" in read_toml(app / name).get("tool", {})
    if poetry and "project" not in read_toml(app / name):
        name = "poetry.lock"
    if command := INSTEAD.get(kind(name)):
        raise ValidationError(
            f"app_requirements: the format of {'Poetry' if poetry else name} is not supported. "
            f"`{command}` makes a file that is.",
            "app_requirements: requirements.lock",
        )
    if not (app / name).resolve().is_relative_to(app.resolve()) or not (app / name).is_file():
        patterns = ("*requirements*", "pyproject.toml", "*lock*")
        there = sorted({path.name for each in patterns for path in app.glob(each)})
        raise ValidationError(
            f"app_requirements: the app has no file {name}; it has {', '.join(there) or 'none'}. "
            "For a workspace, leave app_source_subfolder empty.",
            f"app_requirements: {next(iter(there), 'requirements.txt')}",
        )


def read_text(path: Path) -> str:
    """Return a file's text, decoded as pip does: by its byte order mark, otherwise as UTF-8."""
    data = path.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValidationError(f"app_requirements: save {path.name} in UTF-8: {error}") from error


def read_file(app: Path, name: str, found: Requirements, into: list[str]) -> None:
    """Read a file in pip's format and the files that it includes into `found`."""
    path = app / name
    if path in found.read:
        return
    found.read.append(path)
    for line in logical_lines(read_text(path)):
        if include := INCLUDE.fullmatch(line):
            included = (path.parent / include[1].strip()).resolve()
            if not included.is_relative_to(app.resolve()) or not included.is_file():
                raise ValidationError(
                    f"app_requirements: {name} includes {include[1]}, which is not a file of the "
                    "app's source. Use app_constraints and app_extra_requirements instead.",
                    "app_extra_requirements: [gunicorn]",
                )
            below = into if line.startswith(("-r", "--r")) else found.constraints
            read_file(app.resolve(), str(included.relative_to(app.resolve())), found, below)
            continue
        bare = EDITABLE.sub("", line)
        if LOCAL.match(bare) or (bare != line and "://" not in bare):
            refuse_local(name, bare)
        if bare.startswith("-"):
            known = [*found.options, "--require-hashes"]  # hashes are required wherever possible
            found.options += [bare] if bare not in known else []
            continue
        into.append(re.sub(r"^(git\+\S+?)#egg=([\w.-]+)\S*", r"\2 @ \1", bare))
        if into is found.lines and not is_locked(bare) and name not in found.loose:
            found.loose.append(name)


def refuse_local(name: str, line: str) -> None:
    """Raise ValidationError for a local path, with the alternative."""
    raise ValidationError(
        f"app_requirements: {name} needs {line!r}, which hosts do not have. Replace a path that "
        "conda wrote by the version. Remove the line if it is the app itself; to install the app,",
        "app_install_project: true",
    )


def pylock_lines(app: Path, name: str) -> list[str]:
    """Return the packages of a pylock.toml (PEP 751) as lines."""
    try:
        packages = Pylock.from_dict(read_toml(app / name)).packages
    except PylockValidationError as error:
        raise ValidationError(f"app_requirements: {name} is invalid: {error}") from error
    lines = []
    for package in packages:
        files = [*(package.wheels or []), package.sdist, package.archive]
        hashes = {f"--hash={k}:{v}" for file in files if file for k, v in file.hashes.items()}
        line = f"{package.name}=={package.version or ''}"
        if package.directory or (package.vcs and not package.vcs.url):
            refuse_local(name, package.name)
        if package.vcs:
            line = f"{package.name} @ {package.vcs.type}+{package.vcs.url}@{package.vcs.commit_id}"
        line += f" ; {package.marker}" if package.marker else ""
        lines.append(" ".join([line, *sorted(hashes)]))
    return lines


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; empty when it does not exist."""
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ValidationError(f"{path.name} of the app cannot be read: {error}") from error


def read_requires_python(app: Path, names: list[str]) -> str:
    """Return the Python versions that the app and its locks require."""
    found = [read_toml(app / "pyproject.toml").get("project", {}).get("requires-python", "")]
    locks = [name for name in names if kind(name) in ("uv.lock", "pylock.toml")]
    found += [read_toml(app / name).get("requires-python", "") for name in locks]
    return ",".join(dict.fromkeys(part.replace(" ", "") for part in found if part))
