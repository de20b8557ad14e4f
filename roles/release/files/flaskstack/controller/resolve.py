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
import subprocess
import sys
import tempfile
import tomllib
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

FORMAT = 2  # increment when the same inputs result in a different lock
KEEP = 20  # locks kept in the cache
LOWEST_GUNICORN = "22"  # the first that drops headers which imitate the proxy's
TIMEOUT = 5  # seconds for the query for wheels
NOTICE = (
    "{} not locked: versions are those of the day when this was first built here, "
    "until the file changes. `uv lock`, or `uv pip compile --generate-hashes`, makes a lock"
)
PINS = 'app_constraints: ["flask==3.1.2"]'
# Fixes for errors of uv: the first match wins.
CURES = [
    (
        "no usable wheels|[Bb]uilding source distributions is disabled",
        "of what {names} asks for, something has no wheel for Python {versions}. To tell what it "
        "needs it would be built on the controller, where its code could do anything. It may have "
        "one for the Python that the app was developed with: set app_python to that. Else lock it "
        "there (`uv lock`, `uv pip compile --generate-hashes`), or allow it if you trust these "
        "packages",
        "app_requirements_builds: true",
    ),
    (
        "package registry|[Ff]ailed to (fetch|download)(?! and build)|sending request",
        "the index has not all that {names} asks for, or does not answer. It can be another",
        "app_index_url: https://pypi.org/simple",
    ),
    (
        "No solution found",
        "there are no versions of all that {names}, app_extra_requirements and app_constraints ask "
        "for that work together on Python {versions}. A pin is replaced by one in app_constraints",
        PINS,
    ),
    ("", "uv cannot resolve {names}", ""),
]


def make_lock(app: Path, params: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return the lock for these inputs, from the cache if they were resolved before.

    `name` and `text` are the file for `uv pip`; `hashed` and `open` its lines with and without
    hashes; `complete` means that it has all dependencies; `notice` lists what the app did not pin.
    """
    for name in params["requirements"]:
        check_file(app, name)
    parts = (".txt", ".in", ".toml", "lock")  # files of the app that can affect it
    asked = [entry for entry in describe(app) if entry[0].endswith(parts)]
    given = [params[name] for name in ("requirements", "extras", "extra_requirements", "pins")]
    inputs = [FORMAT, *given, platform(params), without_logins(params["index_url"]), asked]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    known = cache / "locks" / f"{key}.json"
    if known.exists():
        os.utime(known)
        return json.loads(known.read_text())
    lock = resolve(app, params)
    check_gunicorn(lock["hashed"] + lock["open"], params)
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
    found = [line for line in lines if name_of(line) == "gunicorn"]
    if not found:
        raise ValidationError(
            f"app_extra_requirements: the site is served by gunicorn, which is not in {names}.",
            f"app_extra_requirements: {json.dumps([*params['extra_requirements'], 'gunicorn'])}",
        )
    for version in re.findall(r"== *([^\s;]+)", "\n".join(found)):
        if Version(version) < Version(LOWEST_GUNICORN):
            raise ValidationError(
                f"app_requirements: {names} locks gunicorn {version}, and the site needs gunicorn "
                f"{LOWEST_GUNICORN} or newer: lock that, or have gunicorn>={LOWEST_GUNICORN} in",
                PINS,
            )


def resolve(app: Path, params: dict[str, Any]) -> dict[str, Any]:
    """Resolve unpinned requirements, and add those of the inventory."""
    asked, notices, pylock = Requirements(), [], ""
    with tempfile.TemporaryDirectory(dir=app.parent, prefix="lock-") as folder:
        work = Path(folder)
        for name in params["requirements"]:
            if kind(name) == "uv.lock":
                asked.lines += export(app, name, params, work)
                members = read_toml(app / name).get("manifest", {}).get("members", [])
                if len(members) > 1:
                    notices.append(
                        f"{', '.join(members)} are shipped, and not installed. Where Python finds "
                        "them is told by app_environment: {PYTHONPATH: 'packages/web:packages/lib'}"
                    )
            elif kind(name) == "pylock.toml":
                pylock = read_text(app / name)
                asked.lines += pylock_lines(app, name)
            elif kind(name) == "requirements.txt":
                read_file(app, name, asked, asked.lines)
        projects = [name for name in params["requirements"] if kind(name) == "pyproject.toml"]
        if loose := asked.loose + projects:
            are = "is" if len(loose) == 1 else "are"
            notices.append(NOTICE.format(f"{' and '.join(loose)} {are}"))
        lines, resolved = asked.lines, bool(loose or params["pins"])
        if resolved:
            lines = compile_lock(app, params, asked, projects, work)
        elif params["extra_requirements"]:
            known = set(map(name_of, lines))
            fixed = replace(asked, lines=[], constraints=asked.constraints + lines)
            found = compile_lock(app, params, fixed, [], work)
            lines = lines + [line for line in found if name_of(line) not in known]
    hashed = [line for line in lines if is_locked(line)]
    changed = params["requirements"][1:] or params["extra_requirements"] or params["pins"]
    as_it_is = pylock and not changed
    return {
        "name": "pylock.toml" if as_it_is else "requirements.txt",
        "text": pylock if as_it_is else "\n".join(asked.options + hashed) + "\n",
        "hashed": hashed,
        "open": [line for line in lines if not is_locked(line)],
        # A handwritten file may lack dependencies, so uv resolves them on the host.
        "complete": resolved or "requirements.txt" not in map(kind, params["requirements"]),
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
    app: Path, params: dict[str, Any], asked: Requirements, projects: list[str], work: Path
) -> list[str]:
    """Resolve requirements. Locked versions and hashes are kept if they are compatible."""
    known = asked.lines + asked.constraints
    given = "\n".join([*known, *(read_text(app / name) for name in projects)])
    texts = {
        "app.in": asked.options + asked.lines + params["extra_requirements"],
        "constraints.in": asked.constraints,
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
    said = str(error).partition("\n")[2].replace("app.in", "the app")
    reason, example = next((reason, cure) for sign, reason, cure in CURES if re.search(sign, said))
    pythons = dict.fromkeys(python["version"] for python in params["pythons"])
    versions = " and ".join(pythons) or "of the hosts"
    reason = reason.format(names=", ".join(params["requirements"]), versions=versions)
    return ValidationError(f"app_requirements: {reason}.\n{said}", example)


def with_extras(pins: str, asked: str) -> list[str]:
    """Add the extras that the app requires to each pin."""
    found = re.findall(r"(?m)^[\s\"']*([\w.-]+) *(\[[\w,. -]+\])", asked)
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


def without_wheels(lock: dict[str, Any], params: dict[str, Any], folder: Path) -> list[str] | None:
    """Return the packages that hosts must build. Raises ValidationError if one cannot be built.

    None if the index does not answer in time.
    """
    lines = (re.sub(" --hash=.*", "", line) for line in lock["hashed"])
    (folder / "hashed.in").write_text("\n".join(lines))
    command = ["pip", "compile", "--no-deps", "--format=pylock.toml", "--quiet", "hashed.in"]
    found: set[str] = set()
    kinds = {(minor(python["version"]), python["machine"]): python for python in params["pythons"]}
    for python in kinds.values():
        host = platform(params | {"pythons": [python]})
        try:
            text = uv(params, [*command, *host], folder, timeout=TIMEOUT)
        except (ValidationError, subprocess.TimeoutExpired) as error:
            if "no wheels with a matching" in str(error):  # no source distribution either
                raise explained(error, params) from error
            return None
        packages = tomllib.loads(text).get("packages", [])
        found.update(package["name"] for package in packages if not package.get("wheels"))
    return sorted(found)


def uv(params: dict[str, Any], arguments: list[str], folder: Path, **options: Any) -> str:
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
    return run([program, *arguments], cwd=folder, env=environment, **options)
