"""Resolve a release's requirements into one complete lock.

uv resolves and exports. It builds no packages here, unless that is allowed: builds run code of the
app and of packages on the controller.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.version import Version

from flaskstack.controller.archive import describe
from flaskstack.controller.git import protocols
from flaskstack.controller.requirements import (
    Requirements,
    check_file,
    is_locked,
    kind,
    logical_lines,
    name_of,
    pylock_lines,
    read_file,
    read_text,
    read_toml,
)
from flaskstack.errors import ValidationError, run, without_logins

FORMAT = 3  # increment when the same inputs result in a different lock
KEEP = 20  # locks kept in the cache
LOWEST_GUNICORN = "22"  # the first version that drops headers which imitate those of the proxy
NOTICE = (
    "Not locked: {}. Until it changes, versions are those of the first build here. "
    "`uv lock` or `uv pip compile --generate-hashes` makes a lock"
)
WORKSPACE = (
    "{} are deployed but not installed. Add them to Python's path in app_environment: "
    "{{PYTHONPATH: 'packages/web:packages/lib'}}"
)
PINS = 'app_constraints: ["flask==3.1.2"]'
# Fixes for errors of uv: the first match wins.
CURES = [
    (
        "no usable wheels|[Bb]uilding source distributions is disabled",
        "something that {names} requires has no wheel for Python {versions}. Reading its "
        "dependencies would run its code on the controller. If it has a wheel for another Python, "
        "set app_python to that. Otherwise lock it during development (`uv lock`, "
        "`uv pip compile --generate-hashes`), or allow builds if you trust these packages",
        "app_requirements_builds: true",
    ),
    (
        "package registry|[Ff]ailed to (fetch|download)(?! and build)|sending request",
        "the index lacks something that {names} requires, or does not answer",
        "app_index_url: https://pypi.org/simple",
    ),
    (
        "No solution found",
        "{names}, app_extra_requirements and app_constraints contradict each other on Python "
        "{versions}. app_constraints replaces pins of the app",
        PINS,
    ),
    ("", "uv cannot resolve {names}", ""),
]


def make_lock(app: Path, params: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return the lock for these inputs, from the cache if they were resolved before.

    `name` and `text` are the file for `uv pip`. `open` has the requirements without hashes.
    `complete` means that the lock has all dependencies. `notice` lists unpinned requirements.
    """
    for name in params["requirements"]:
        check_file(app, name)
    parts = (".txt", ".in", ".toml", "lock")  # files of the app that can affect it
    content = [entry for entry in describe(app) if entry[0].endswith(parts)]
    given = [params[name] for name in ("requirements", "extras", "extra_requirements", "pins")]
    inputs = [FORMAT, *given, platform(params), without_logins(params["index_url"]), content]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    known = cache / "locks" / f"{key}.json"
    if known.exists():
        os.utime(known)
        return json.loads(known.read_text())
    lock = resolve(app, params)
    known.parent.mkdir(exist_ok=True)
    partial = known.with_name(f".{known.name}")
    partial.write_text(json.dumps(lock))
    partial.rename(known)
    for old in sorted(known.parent.glob("*.json"), key=lambda path: -path.stat().st_mtime)[KEEP:]:
        old.unlink()
    return lock


def check_gunicorn(lines: list[str], params: dict[str, Any]) -> None:
    """Reject a lock without Gunicorn, or with a version below LOWEST_GUNICORN."""
    names = " and ".join(params["requirements"])
    gunicorn = [line for line in lines if name_of(line) == "gunicorn"]
    if not gunicorn:
        raise ValidationError(
            f"app_extra_requirements: gunicorn serves the site, and is not in {names}.",
            f"app_extra_requirements: {json.dumps([*params['extra_requirements'], 'gunicorn'])}",
        )
    for version in re.findall(r"== *([^\s;]+)", "\n".join(gunicorn)):
        if Version(version) < Version(LOWEST_GUNICORN):
            raise ValidationError(
                f"app_requirements: {names} locks gunicorn {version}, but the site needs gunicorn "
                f"{LOWEST_GUNICORN} or newer.",
                f'app_constraints: ["gunicorn>={LOWEST_GUNICORN}"]',
            )


def resolve(app: Path, params: dict[str, Any]) -> dict[str, Any]:
    """Resolve unpinned requirements, and add those of the inventory."""
    found, notices, pylock, names = Requirements(), [], "", params["requirements"]
    with tempfile.TemporaryDirectory(dir=app.parent, prefix="lock-") as folder:
        work = Path(folder)
        for name in names:
            if kind(name) == "uv.lock":
                found.lines += export(app, name, params, work)
                members = read_toml(app / name).get("manifest", {}).get("members", [])
                if len(members) > 1:
                    notices.append(WORKSPACE.format(", ".join(members)))
            elif kind(name) == "pylock.toml":
                pylock = read_text(app / name)
                found.lines += pylock_lines(app, name)
            elif kind(name) == "requirements.txt":
                read_file(app, name, found, found.lines)
        projects = [name for name in names if kind(name) == "pyproject.toml"]
        if loose := found.loose + projects:
            notices.append(NOTICE.format(" and ".join(loose)))
        lines, resolved = found.lines, bool(loose or params["pins"])
        if resolved:
            lines = compile_lock(app, params, found, projects, work)
        elif params["extra_requirements"]:
            known = set(map(name_of, lines))
            fixed = replace(found, lines=[], constraints=found.constraints + lines)
            extra = compile_lock(app, params, fixed, [], work)
            lines = lines + [line for line in extra if name_of(line) not in known]
    check_gunicorn(lines, params)
    hashed = [line for line in lines if is_locked(line)]
    unchanged = not (names[1:] or params["extra_requirements"] or params["pins"])
    return {
        "name": "pylock.toml" if pylock and unchanged else "requirements.txt",
        "text": pylock if pylock and unchanged else "\n".join(found.options + hashed) + "\n",
        "open": [line for line in lines if not is_locked(line)],
        # A handwritten file may lack dependencies, so uv resolves them on the host.
        "complete": resolved or "requirements.txt" not in map(kind, names),
        "notice": ".\n".join(notices),
    }


def export(app: Path, name: str, params: dict[str, Any], work: Path) -> list[str]:
    """Return the packages of a uv.lock, for all projects of a workspace."""
    command = ["export", "--frozen", "--all-packages", "--no-emit-workspace", "--no-default-groups"]
    command += ["--no-header", "--no-annotate", "--format=requirements.txt", "--quiet"]
    command += [f"--extra={extra}" for extra in params["extras"]]
    lines = logical_lines(uv(params, [*command, f"--project={(app / name).parent}"], work))
    for line in lines:
        if line.startswith(("-e", ".", "/")):
            raise ValidationError(
                f"app_requirements: {name} locks {line!r}, a folder, which hosts do not have"
            )
    return lines


def compile_lock(
    app: Path, params: dict[str, Any], found: Requirements, projects: list[str], work: Path
) -> list[str]:
    """Resolve requirements. Locked versions and hashes are kept if they are compatible."""
    known = found.lines + found.constraints
    given = "\n".join([*known, *(read_text(app / name) for name in projects)])
    texts = {
        "app.in": found.options + found.lines + params["extra_requirements"],
        "constraints.in": found.constraints,
        "pins.in": with_extras(params["pins"], given),
        "lock.txt": [line for line in known if is_locked(line)],
    }
    for name, lines in texts.items():
        (work / name).write_text("\n".join(lines))
    command = ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    command += [] if params["builds"] else ["--no-build"]
    command += ["--output-file=lock.txt", "--overrides=pins.in", "app.in"]
    command += ["--constraints=constraints.in", *platform(params)]
    command += [f"--extra={extra}" for extra in params["extras"] if projects]
    try:
        uv(params, [*command, *(str(app / name) for name in projects)], work)
    except ValidationError as error:
        raise explained(error, params) from error
    return logical_lines((work / "lock.txt").read_text())


def explained(error: ValidationError, params: dict[str, Any]) -> ValidationError:
    """Return uv's error with the variable that fixes it."""
    output = str(error).partition("\n")[2].replace("app.in", "the app")
    reason, example = next((row[1], row[2]) for row in CURES if re.search(row[0], output))
    pythons = dict.fromkeys(python["version"] for python in params["pythons"])
    versions = " and ".join(pythons) or "of the hosts"
    reason = reason.format(names=", ".join(params["requirements"]), versions=versions)
    return ValidationError(f"app_requirements: {reason}.\n{output}", example)


def with_extras(pins: str, requirements: str) -> list[str]:
    """Add the extras that the app requires to each pin."""
    found = re.findall(r"(?m)^[\s\"']*([\w.-]+) *(\[[\w,. -]+\])", requirements)
    extras = {name_of(name): those for name, those in found}
    return [
        re.sub(r"^([\w.-]+)(?= *[=<>!~@;]|$)", rf"\1{extras.get(name_of(line), '')}", line)
        for line in logical_lines(re.sub(r"--hash=\S+", "", pins))
    ]


def platform(params: dict[str, Any]) -> list[str]:
    """Return uv's options for the hosts' platform; universal if they differ."""
    kinds = {(minor(python["version"]), python["machine"]) for python in params["pythons"]}
    lowest = min((python["version"] for python in params["pythons"]), key=Version, default="")
    command = [f"--python-version={lowest}"] if lowest else []
    if len(kinds) == 1:
        return [*command, f"--python-platform={kinds.pop()[1]}-unknown-linux-gnu"]
    return [*command, "--universal"]


def minor(version: str) -> str:
    """Return 3.13 of 3.13.5."""
    return ".".join(version.split(".")[:2])


def uv(params: dict[str, Any], arguments: list[str], folder: Path) -> str:
    """Run uv. The index and its login are passed in the environment only."""
    program = params["uv"] if Path(params["uv"]).is_file() else shutil.which("uv")
    if not program:
        raise ValidationError(
            "uv, which resolves requirements, is not on the controller: run `./stack tools`"
        )
    environment = os.environ | protocols() | {"GIT_TERMINAL_PROMPT": "0", "NO_COLOR": "1"}
    environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable}
    environment |= {"UV_DEFAULT_INDEX": params["index_url"]} if params["index_url"] else {}
    environment |= {"SSL_CERT_FILE": params["index_ca"]} if params["index_ca"] else {}
    return run([program, *arguments], cwd=folder, env=environment)
