"""Everything that a release needs installed, as one lock that leaves nothing open."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaskstack.controller.archive import describe
from flaskstack.controller.requirements import (
    Requirements,
    check_files,
    is_locked,
    kind,
    logical_lines,
    name_of,
    read_file,
    read_pylock,
    read_toml,
)
from flaskstack.errors import RefusedError, run

FORMAT = 1  # raise when the same inputs give another lock than before
KEEP = 20  # locks that are remembered
NOTICE = (
    "{} not locked: versions are those of the day when this was first built here, "
    "until the file changes. `uv lock`, or `uv pip compile --generate-hashes`, makes a lock"
)


@dataclass
class Wanted:
    """What makes a lock, apart from the app's files."""

    names: list[str]  # of files in the app's source
    extras: list[str]
    more: list[str]  # requirement lines
    pins: str  # text of a constraints file
    index: str  # URL
    ca: str  # file
    pythons: list[tuple[str, str]]  # version and machine of each host
    uv: str  # program


def make_lock(app: Path, wanted: Wanted, cache: Path) -> dict[str, Any]:
    """Return the lock of these inputs. What was resolved before is not resolved again.

    `hashed` and `open` are requirement lines with and without hashes; `complete` says that nothing
    else is needed; `notice` tells what was not locked by the app.
    """
    check_files(app, wanted.names)
    asked = Requirements()
    for name in wanted.names:
        if kind(name) == "requirements.txt":
            read_file(app, name, asked)
        elif kind(name) == "pylock.toml":
            read_pylock(app, name, asked)
        else:
            asked.read += [app / name, app / name.replace("uv.lock", "pyproject.toml")]
    known = cache / "locks" / f"{key(app, wanted, asked)}.json"
    if known.exists():
        os.utime(known)
        return json.loads(known.read_text())
    lock = resolve(app, wanted, asked)
    if "gunicorn" not in map(name_of, lock["hashed"] + lock["open"]):
        raise RefusedError(
            f"app_extra_requirements: the site is served by gunicorn, which is not in "
            f"{' or '.join(wanted.names)}.",
            f"app_extra_requirements: {json.dumps([*wanted.more, 'gunicorn'])}",
        )
    known.parent.mkdir(exist_ok=True)
    partial = known.with_name(f".{known.name}")
    partial.write_text(json.dumps(lock))
    partial.rename(known)
    for old in sorted(known.parent.glob("*.json"), key=lambda path: -path.stat().st_mtime)[KEEP:]:
        old.unlink()
    return lock


def key(app: Path, wanted: Wanted, asked: Requirements) -> str:
    """Hash all that the lock depends on."""
    whole = any(is_dynamic(path) for path in asked.read)
    inputs = [FORMAT, wanted.names, wanted.extras, wanted.more, wanted.pins, platform(wanted)]
    inputs += [[path.read_text() for path in asked.read if path.is_file()]]
    inputs += [describe(app) if whole else [], hashlib.sha256(wanted.index.encode()).hexdigest()]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def is_dynamic(path: Path) -> bool:
    """Say whether only the app's own build tells what it needs."""
    if path.name != "pyproject.toml":
        return False
    project = read_toml(path).get("project", {"dynamic": ["dependencies"]})
    return bool({"dependencies", "optional-dependencies"} & set(project.get("dynamic", [])))


def resolve(app: Path, wanted: Wanted, asked: Requirements) -> dict[str, Any]:
    """Fill in what the app leaves open, and put in what the inventory adds."""
    with tempfile.TemporaryDirectory(dir=app.parent, prefix="lock-") as folder:
        work = Path(folder)
        for name in wanted.names:
            if kind(name) == "uv.lock":
                asked.lines += export(app, name, wanted, work)
        projects = [name for name in wanted.names if kind(name) == "pyproject.toml"]
        loose = asked.unlocked + projects
        complete = bool(loose or wanted.pins or not all(map(pip_can_check, wanted.names)))
        if loose or wanted.pins:
            lines = compile_lock(app, wanted, asked, projects, work)
        elif wanted.more:
            lines = asked.lines + add(app, wanted, asked, work)
        else:
            lines = asked.lines
    return {
        "options": asked.options,
        "hashed": [line for line in lines if is_locked(line)],
        "open": [line for line in lines if not is_locked(line)],
        "complete": complete,
        "notice": NOTICE.format(f"{' and '.join(loose)} {'is' if len(loose) == 1 else 'are'}")
        if loose
        else "",
    }


def pip_can_check(name: str) -> bool:
    """Say whether pip itself is to find out that a lock lacks something: a person may have."""
    return kind(name) == "requirements.txt"


def export(app: Path, name: str, wanted: Wanted, work: Path) -> list[str]:
    """Return what a uv.lock says."""
    command = ["export", "--frozen", "--no-emit-project", "--no-default-groups", "--no-header"]
    command += ["--no-annotate", "--format=requirements.txt", "--quiet"]
    command += [f"--extra={extra}" for extra in wanted.extras]
    lines = logical_lines(uv(wanted, [*command, f"--project={(app / name).parent}"], work))
    for line in lines:
        if line.startswith(("-e", ".", "/")):
            raise RefusedError(
                f"app_requirements: {name} locks {line!r}, a folder, which hosts do not have"
            )
    return lines


def compile_lock(
    app: Path, wanted: Wanted, asked: Requirements, projects: list[str], work: Path
) -> list[str]:
    """Resolve everything together, with the inventory's pins above those of the app."""
    more, pins, locked = work / "more.in", work / "pins.in", work / "locked.in"
    more.write_text("\n".join(wanted.more))
    pins.write_text("\n".join(with_extras(wanted.pins, asked.lines + dependencies(app, projects))))
    locked.write_text("\n".join(asked.options + asked.lines))
    # The lines are given as they were read, with the app's own constraints beside them.
    if projects:  # whose build may leave files behind
        shutil.copytree(app, work / "app", symlinks=True)
    command = [str(locked), str(more), *(str(work / "app" / name) for name in projects)]
    for path in asked.read:
        if kind(path.name) == "requirements.txt":
            for line in logical_lines(path.read_text()):
                if line.startswith(("-c", "--constraint")):
                    command.append(
                        f"--constraint={path.parent / re.split('[ =]+', line, maxsplit=1)[-1]}"
                    )
    command += [f"--extra={extra}" for extra in wanted.extras if projects]
    if wanted.pins:
        command.append(f"--overrides={pins}")
    found = logical_lines(uv_compile(wanted, command, work))
    return [keep_hashes(line, asked.lines) for line in found]


def add(app: Path, wanted: Wanted, asked: Requirements, work: Path) -> list[str]:
    """Resolve what the inventory adds to a lock, within the app's own pins."""
    more, locked = work / "more.in", work / "locked.in"
    more.write_text("\n".join([*asked.options, *wanted.more]))
    locked.write_text("\n".join(asked.lines))
    known = set(map(name_of, asked.lines))
    found = logical_lines(uv_compile(wanted, [str(more), f"--constraint={locked}"], work))
    return [line for line in found if name_of(line) not in known]


def with_extras(pins: str, asked: list[str]) -> list[str]:
    """Let a pin mean the extras, too, that the app asks for."""
    extras: dict[str, str] = {}
    for line in asked:
        if found := re.match(r"[\w.-]+ *(\[[^\]]*\])", line):
            extras[name_of(line)] = found.group(1)
    lines = []
    for line in logical_lines(pins):
        if line.startswith("-"):
            raise RefusedError(f"app_constraints: {line!r} is no pin, such as flask==3.1.2")
        name = re.match(r"[\w.-]+", line)
        bare = name and not line[name.end() :].lstrip().startswith("[")
        found = extras.get(name_of(line), "") if bare else ""
        lines.append(re.sub(r"^([\w.-]+)", rf"\1{found}", re.sub(r" --hash=\S+", "", line)))
    return lines


def dependencies(app: Path, projects: list[str]) -> list[str]:
    """Return what projects say that they need, as far as it can be read."""
    found: list[str] = []
    for name in projects:
        project = read_toml(app / name).get("project", {})
        found += project.get("dependencies", [])
        for extra in project.get("optional-dependencies", {}).values():
            found += extra
    return found


def keep_hashes(line: str, asked: list[str]) -> str:
    """Believe the app's own lock, and not the index, about a version that it knows."""
    pin = re.match(r"([\w.-]+)==([^\s;]+)", line)
    for own in asked:
        if pin and is_locked(own) and name_of(own) == name_of(line):
            version = re.match(r"[\w.-]+(?:\[[^\]]*\])? *== *([^\s;]+)", own)
            if version and version.group(1) == pin.group(2):
                hashes = re.findall(r"--hash=\S+", own)
                return " ".join([re.sub(r" --hash=\S+", "", line), *hashes])
    return line


def platform(wanted: Wanted) -> list[str]:
    """Say which hosts the lock is for: all alike, or of several kinds."""
    kinds = {(minor(version), machine) for version, machine in wanted.pythons}
    lowest = min((version for version, _ in wanted.pythons), key=numbers, default="")
    command = [f"--python-version={lowest}"] if lowest else []
    if len(kinds) == 1:
        ((_, machine),) = kinds
        return [*command, f"--python-platform={machine}-unknown-linux-gnu"]
    return [*command, "--universal"]


def numbers(version: str) -> tuple[int, ...]:
    """Return a version so that it can be compared."""
    return tuple(map(int, re.findall(r"\d+", version)))


def minor(version: str) -> str:
    """Return 3.13 of 3.13.5."""
    return ".".join(version.split(".")[:2])


def uv_compile(wanted: Wanted, arguments: list[str], work: Path) -> str:
    """Resolve with uv, or say what cannot be had together."""
    command = ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    command += ["--no-python-downloads", f"--python={sys.executable}", *platform(wanted)]
    versions = " and ".join(dict.fromkeys(version for version, _ in wanted.pythons))
    try:
        return uv(wanted, [*command, *arguments], work)
    except RefusedError as error:
        said = str(error).partition("\n")[2].replace(f"{work}/", "").replace("locked.in", "the app")
        files = ", ".join(wanted.names)
        if re.search("No solution found", said):
            raise RefusedError(
                f"app_requirements: there are no versions of all that {files}, "
                "app_extra_requirements and app_constraints ask for that work together on Python "
                f"{versions}:\n{said}\nA pin of the app's is replaced by one in app_constraints.",
                'app_constraints: "{{ inventory_dir }}/constraints.txt"',
            ) from error
        if re.search("(?i)failed to (build|prepare|get requirements)|build backend", said):
            raise RefusedError(
                f"app_requirements: something that {files} asks for must be built on this machine "
                f"to tell what it needs, and that failed:\n{said}\nA lock (uv.lock, or "
                "requirements with hashes) needs no such build, and neither does a version with "
                "a wheel.",
                "app_requirements: uv.lock",
            ) from error
        raise RefusedError(
            f"app_requirements: uv cannot resolve {files}:\n{said}\n"
            "The index that it asks can be another.",
            "app_index_url: https://pypi.org/simple",
        ) from error


def uv(wanted: Wanted, arguments: list[str], folder: Path) -> str:
    """Run uv, which finds the index and the way into it in its environment alone."""
    program = wanted.uv if Path(wanted.uv).is_file() else shutil.which("uv")
    if not program:
        raise RefusedError(
            "uv, which resolves requirements, is not on the controller: run `./stack tools`"
        )
    environment = os.environ | {"NO_COLOR": "1"}
    environment |= {"UV_DEFAULT_INDEX": wanted.index} if wanted.index else {}
    environment |= {"SSL_CERT_FILE": wanted.ca} if wanted.ca else {}
    return run([program, *arguments], cwd=folder, env=environment)
