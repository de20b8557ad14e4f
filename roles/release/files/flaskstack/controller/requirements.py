"""Read an app's requirements files and the files that they include."""

from __future__ import annotations

import codecs
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flaskstack.errors import ValidationError

INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)[ =]*(\S.*)")
EDITABLE = re.compile(r"^(?:-e\b|--editable\b)[ =]*")
LOCAL = re.compile(r"\.{0,2}/|\.$|(?:\S+ *@ *)?(git\+)?file:")
PYLOCK = re.compile(r"pylock\.([^.]+\.)?toml")
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
    last = name.rsplit("/", 1)[-1]
    if last in ("uv.lock", "pyproject.toml", *INSTEAD):
        return last
    return "pylock.toml" if PYLOCK.fullmatch(last) else "requirements.txt"


def logical_lines(text: str) -> list[str]:
    """Join continued lines, and remove comments."""
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [re.sub(r"\s+", " ", line) for line in bare if line]


def name_of(line: str) -> str:
    """Return the normalized package name of a line."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def is_locked(line: str) -> bool:
    """Return whether a line pins its files by hash."""
    return "--hash=" in line


def check_file(app: Path, name: str) -> None:
    """Raise ValidationError for a file that is missing or that uv does not read."""
    if command := INSTEAD.get(kind(name)):
        raise ValidationError(
            f"app_requirements: {name} is not read. `{command}` makes a file that is.",
            "app_requirements: requirements.lock",
        )
    if not (app / name).resolve().is_relative_to(app.resolve()) or not (app / name).is_file():
        patterns = ("*requirements*", "pyproject.toml", "*lock*")
        there = sorted({path.name for each in patterns for path in app.glob(each)})
        raise ValidationError(
            f"app_requirements: the app has no file {name}; it has "
            f"{', '.join(there) or 'nothing that looks like one'}. Of a workspace, all is shipped "
            "where app_source_subfolder is empty.",
            f"app_requirements: {next(iter(there), 'requirements.txt')}",
        )
    if kind(name) == "pyproject.toml":
        data = read_toml(app / name)
        if "project" not in data and "poetry" in data.get("tool", {}):
            raise ValidationError(
                f"app_requirements: {name} has its dependencies in Poetry's format, which uv does "
                f"not read. `{INSTEAD['poetry.lock']}` makes a file that is.",
                "app_requirements: requirements.lock",
            )


def read_text(path: Path) -> str:
    """Return a file's text, decoded like pip does: by its byte order mark, otherwise as UTF-8."""
    data = path.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValidationError(f"app_requirements: save {path.name} in UTF-8: {error}") from error


def read_file(app: Path, name: str, asked: Requirements, into: list[str]) -> None:
    """Read a file in pip's format and the files that it includes."""
    path = app / name
    if path in asked.read:
        return
    asked.read.append(path)
    for line in logical_lines(read_text(path)):
        if found := INCLUDE.fullmatch(line):
            included = (path.parent / found.group(1).strip()).resolve()
            if not included.is_relative_to(app.resolve()) or not included.is_file():
                raise ValidationError(
                    f"app_requirements: {name} includes {found.group(1)}, which is no file of the "
                    "app's source. What comes from elsewhere is given by app_constraints and "
                    "app_extra_requirements.",
                    "app_extra_requirements: [gunicorn]",
                )
            below = into if line.startswith(("-r", "--r")) else asked.constraints
            read_file(app.resolve(), str(included.relative_to(app.resolve())), asked, below)
            continue
        bare = EDITABLE.sub("", line)
        if LOCAL.match(bare) or (bare != line and "://" not in bare):
            refuse_local(name, bare)
        if bare.startswith("-"):
            known = [*asked.options, "--require-hashes"]  # hashes are required wherever possible
            asked.options += [bare] if bare not in known else []
            continue
        into.append(re.sub(r"^(git\+\S+?)#egg=([\w.-]+)\S*", r"\2 @ \1", bare))
        if into is asked.lines and not is_locked(bare) and name not in asked.loose:
            asked.loose.append(name)


def refuse_local(name: str, line: str) -> None:
    """Raise ValidationError for a local path, with the alternative."""
    asks = f"app_requirements: {name} asks for {line!r}, which hosts do not have."
    if found := re.match(r"([\w.-]+) *@ *file:", line):
        raise ValidationError(
            f"{asks} That is frozen by conda: write {found.group(1)}==its version."
        )
    raise ValidationError(
        f"{asks} If that is the app itself, leave the line out; to have the app installed, too,",
        "app_install_project: true",
    )


def pylock_lines(app: Path, name: str) -> list[str]:
    """Return the packages of a pylock.toml (PEP 751) as lines."""
    lines = []
    for package in read_toml(app / name).get("packages", []):
        files = package.get("wheels", []) + [
            package[key] for key in ("sdist", "archive") if key in package
        ]
        hashes = {f"--hash={a}:{d}" for file in files for a, d in file.get("hashes", {}).items()}
        line = f"{package['name']}=={package.get('version', '')}"
        if not files:
            source = package.get("vcs", package.get("directory", {}))
            line = f"{package['name']} @ {source.get('url') or 'file:' + source.get('path', '')}"
            if LOCAL.match(line):
                refuse_local(name, line.partition("file:")[2] or line)
        line += f" ; {package['marker']}" if "marker" in package else ""
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
    locks = [name for name in names if kind(name) in ("uv.lock", "pylock.toml")]
    said = [read_toml(app / "pyproject.toml").get("project", {}).get("requires-python", "")]
    said += [read_toml(app / name).get("requires-python", "") for name in locks]
    return ",".join(dict.fromkeys(part.replace(" ", "") for part in said if part))
