"""Build an app's source into one archive and one lock for all hosts.

A release is named by a hash of its inputs and packed once. The source is only read; all output is
below the folder `cache`. If build commands remain to run on a host, only the archive `source`
exists; `repack` creates `archive` from their result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from flaskstack.controller.archive import name_release, pack
from flaskstack.controller.requirements import read_requires_python
from flaskstack.controller.resolve import make_lock, minor
from flaskstack.controller.source import check, stage, unpack
from flaskstack.errors import ValidationError

TEXT: dict[str, Any] = {"type": "str", "default": ""}
LIST: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
DICT: dict[str, Any] = {"type": "dict", "default": {}}
SOURCE = ("folder", "git", "ref", "archive", "checksum", "subfolder")
OPTIONS: dict[str, Any] = {
    "source": {"type": "dict", "required": True, "options": dict.fromkeys(SOURCE, TEXT)},
    "requirements": LIST | {"required": True, "default": None},  # files inside the app
    "hashed": {"type": "bool", "default": True},  # reject requirements without a hash
    "builds": {"type": "bool", "default": False},  # build packages here to read their dependencies
    "extras": LIST,  # of the app's project
    "extra_requirements": LIST,  # lines
    "pins": TEXT,  # lines
    "index_url": TEXT | {"no_log": True},
    "index_ca": TEXT,  # path
    "python": TEXT,  # app_python
    "pythons": DICT,  # result of flaskstack.python.find by host; empty version: not known yet
    "uv": TEXT,  # path of the program
    "commands": LIST,  # run on a host, in the release
    "environment": DICT,  # variables of the commands
    "install_project": {"type": "bool", "default": False},
    "links": DICT,  # links to shared paths, with their targets
    "root": TEXT,  # folder of releases on a host
    "cache": {"type": "path", "required": True},  # folder of built archives
    "keep": {"type": "int", "default": 5},  # archives to keep there
    "without": LIST,  # folders that are never part of a release
    "secrets": LIST | {"no_log": True},  # texts that must not be in a release
    "built": DICT,  # a release after its build commands ran
    "dry_run": {"type": "bool", "default": False},  # write no archive
    "settings": TEXT | {"default": "the inventory"},  # file to set the variables in
}


def build(params: dict[str, Any]) -> dict[str, Any]:
    """Name the release and pack it, unless it was built before or `dry_run` is set."""
    cache = Path(params["cache"]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".work-") as work:
        target = Path(work, "app")
        app, commit = stage(params["source"], target, cache, params["without"], params["secrets"])
        check_pythons(params, read_requires_python(app, params["requirements"]))
        pythons = [python for python in params["pythons"].values() if python["version"]]
        params = params | {"pythons": pythons}
        lock = make_lock(app, params, cache)
        refuse_unhashed(lock["open"], params["hashed"])
        result = describe(params, app, commit, lock, cache)
        archive = Path(result["archive"])
        result["changed"] = not archive.exists()
        if archive.exists():
            os.utime(archive)
        elif not params["dry_run"]:
            Path(result["lock"]).write_text(lock["text"])
            if result["built"]:
                pack(app, result["environment"], params["links"], archive)
            else:
                pack(app, {}, {}, Path(result["source"]))
    prune(cache, params["keep"])
    return result


def repack(release: dict[str, Any], links: dict[str, str]) -> None:
    """Write the archive for hosts from a release of `build` and the result of its build commands.

    That result is the file `.<id>.built.tar.gz` beside the archive.
    """
    archive, variable = Path(release["archive"]), "app_build_commands"
    built = archive.with_name(f".{release['id']}.built.tar.gz")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".work-") as work:
        unpack(built, Path(work), variable)
        check(Path(work), [], variable)
        pack(Path(work), release["environment"], links, archive)
    for used in (built, Path(release["source"])):
        used.unlink(missing_ok=True)


def check_pythons(params: dict[str, Any], requires: str) -> None:
    """Reject a host if its Python is missing or does not match requires-python of the app."""
    try:
        allowed = SpecifierSet(requires)
    except InvalidSpecifier as error:
        raise ValidationError(f"requires-python of the app's pyproject.toml: {error}") from error
    for host, python in params["pythons"].items():
        version = python["version"]
        if allowed.contains(version, prereleases=True) if version else params["dry_run"]:
            continue
        names = {found: Path(path).name for found, path in python.get("found", {}).items()}
        known = ", ".join(f"{name} ({found})" for found, name in names.items()) or "none"
        reason = f'is {version} on {host}, but the app has requires-python = "{requires}"'
        reason += f"; the host has {known}" if names else ""
        if not version:
            reason = (
                f"{python['reason']} on {host}, which has {known}; name one of these, a version "
                "such as '3.12', which is then installed, or have app_packages install it"
            )
        lowest = re.search(r"\d+\.\d+", requires)
        usable = [names[found] for found in names if allowed.contains(found, prereleases=True)]
        example = usable[0] if usable else f'"{lowest[0] if lowest else "3.13"}"'
        raise ValidationError(
            f"app_python is {params['python']}: {reason}.", f"app_python: {example}"
        )


def refuse_unhashed(lines: list[str], hashed: bool) -> None:
    """Reject requirements that hosts cannot verify or cannot fetch."""
    private = [line for line in lines if re.search(r"\+ssh:|@ *ssh:", line)]
    if private:
        raise ValidationError(
            f"app_requirements: {', '.join(private)} needs an SSH key, which hosts do not have. "
            "Publish a wheel of it in your own index.",
            "app_index_url: https://user:password@packages.example.com/simple",
        )
    if hashed and lines:
        raise ValidationError(
            f"app_requirements_hashed: {', '.join(lines)} has no hash. To install it anyway, "
            "hosts need app_build_packages: [git] and its server in app_build_hosts, and",
            "app_requirements_hashed: false",
        )


def describe(
    params: dict[str, Any], app: Path, commit: dict[str, Any], lock: dict[str, Any], cache: Path
) -> dict[str, Any]:
    """Return the release's name and the paths of its files."""
    parts = [lock[name] for name in ("name", "text", "open", "complete")] + [params["hashed"]]
    pythons = {
        (minor(python["version"]), python["machine"], python.get("executable", ""))
        for python in params["pythons"]
    }
    options: list[Any] = [parts, params["links"], sorted(pythons)]
    variables = build_environment(params, commit.get("tag", ""))
    on_host = bool(params["commands"] or params["install_project"])
    if on_host:
        options += [params["commands"], variables, params["install_project"]]
    source = commit.get("commit", "")  # empty when the source is not a checkout
    name = name_release(app, source if params["source"]["git"] else "", options)
    environment = {"APP_RELEASE": name}
    if params["install_project"]:
        environment["PYTHONPATH"] = f"{params['root']}/{name}/.site-packages"
    archive = cache / f"{name}.tar.gz"
    return {
        "id": name,
        "commit": source,
        "revision": source[:12] + ("+" if commit.get("dirty") else ""),
        "archive": str(archive),  # for hosts
        "source": str(cache / f".{name}.source.tar.gz"),  # input of the build commands
        "built": archive.exists() or not on_host,
        "environment": environment,
        "build_environment": variables,
        "lock": str(cache / f"{name}.lock"),
        "lock_name": lock["name"],  # its format
        "lock_hash": hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12],
        "complete": lock["complete"],  # no dependencies outside the lock
        "unhashed": lock["open"] if lock["name"] == "requirements.txt" else [],
        "notice": lock["notice"],
    }


def build_environment(params: dict[str, Any], tag: str) -> dict[str, str]:
    """Return the variables of a build, with the version from git, since .git is not shipped."""
    name = "SETUPTOOLS_SCM_PRETEND_VERSION"
    set_already = any(variable.startswith(name) for variable in params["environment"])
    found = re.fullmatch(r"(.*?)(?:-(\d+)-(g[0-9a-f]+))?", tag)
    if not params["install_project"] or set_already or not tag or not found:
        return params["environment"]
    base, distance, commit = found.groups()
    try:
        version = str(Version(base))
    except InvalidVersion:
        return params["environment"]
    version += f".post1.dev{distance}+{commit}" if distance else ""
    return params["environment"] | {name: version}


def prune(cache: Path, keep: int) -> None:
    """Remove all but the most recently used archives."""
    archives = sorted(cache.glob("[!.]*.tar.gz"), key=lambda path: -path.stat().st_mtime)
    for old in archives[keep:]:
        old.unlink()
        old.with_name(old.name.replace(".tar.gz", ".lock")).unlink(missing_ok=True)
