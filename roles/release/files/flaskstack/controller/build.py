"""Turn an app's source into one archive and one lock that are the same on every host.

A release is named after everything that makes it, and packed once. What the app's requirements
leave open is resolved once for the same requirements. The source is only read; all that is written
is below the folder `cache`. Where commands are still to be run on a host, the archive is `source`
and not yet `archive`; see module pack_release.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from flaskstack.controller.archive import name_release, pack
from flaskstack.controller.lock import Wanted, make_lock, minor
from flaskstack.controller.requirements import check_files, read_requires_python
from flaskstack.controller.source import stage
from flaskstack.errors import RefusedError
from packaging.specifiers import InvalidSpecifier, SpecifierSet

TEXT: dict[str, Any] = {"type": "str", "default": ""}
LIST: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
OPTIONS: dict[str, Any] = {
    "source": {
        "type": "dict",
        "required": True,
        "options": {
            "folder": TEXT,  # on the controller
            "git": TEXT,  # URL
            "ref": TEXT,  # branch, tag or commit; empty: the default branch
            "archive": TEXT,  # tar or zip file, or its URL
            "checksum": TEXT,  # algorithm:digest
            "subfolder": TEXT,  # of the app inside its source
        },
    },
    "requirements": {"type": "list", "elements": "str", "required": True},  # files inside the app
    "hashed": {"type": "bool", "default": True},  # refuse what has no hash
    "extras": LIST,  # of the app's project
    "extra_requirements": LIST,  # lines
    "constraints": TEXT,  # file on the controller
    "index_url": TEXT | {"no_log": True},
    "index_ca": TEXT,  # file on the controller
    "pythons": {"type": "list", "elements": "dict", "default": []},  # of the hosts
    "uv": TEXT,  # program
    "commands": LIST,  # run in the release, on a host
    "environment": {"type": "dict", "default": {}},  # of the commands
    "install_project": {"type": "bool", "default": False},
    "links": {"type": "dict", "default": {}},  # out of the release, and where to
    "root": {"type": "str", "default": ""},  # folder of releases on a host
    "cache": {"type": "path", "required": True},  # folder of built archives
    "keep": {"type": "int", "default": 5},  # archives to keep there
    "settings": {"type": "str", "default": "the inventory"},  # where the user sets all this
}


def read_pins(name: str) -> str:
    """Return what the inventory's constraints file says."""
    try:
        return Path(name).read_text() if name else ""
    except OSError as error:
        raise RefusedError(
            f"app_constraints: {name} is not a file on the controller.",
            'app_constraints: "{{ inventory_dir }}/constraints.txt"',
        ) from error


def fits(requires_python: str, versions: list[str]) -> bool:
    """Say whether the app runs on the hosts' Python, so that there is anything to resolve."""
    try:
        allowed = SpecifierSet(requires_python)
    except InvalidSpecifier as error:
        raise RefusedError(f"requires-python of the app's pyproject.toml: {error}") from error
    return all(allowed.contains(version, prereleases=True) for version in versions)


def digest(value: Any) -> str:
    """Return a short hash of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def build(params: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Name the release and pack it, unless it was built before or is only looked at."""
    cache = Path(params["cache"]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".work-") as work:
        app, commit = stage(params["source"], Path(work, "app"), cache)
        check_files(app, params["requirements"])
        requires_python = read_requires_python(app, params["requirements"])
        result = {
            "changed": False,
            "requires_python": requires_python,  # empty when the app does not say
            "commit": commit.get("commit", ""),  # empty when the source is no checkout
            "commit_date": commit.get("commit_date", ""),
            "commit_subject": commit.get("commit_subject", ""),
            "dirty": commit.get("dirty", False),  # the folder's files differ from the commit
        }
        versions = [python["version"] for python in params["pythons"]]
        if not fits(requires_python, versions):
            return result | {"fits": False}
        lock = make_lock(app, wanted(params), cache)
        if params["hashed"] and lock["open"]:
            raise RefusedError(
                f"app_requirements_hashed: {', '.join(lock['open'])} cannot be checked against a "
                "hash. If it is to be installed all the same,",
                "app_requirements_hashed: false",
            )
        result |= released(params, app, commit if params["source"]["git"] else {}, lock, cache)
        archive, source = Path(result["archive"]), Path(result["source"])
        if archive.exists():
            os.utime(archive)
        else:
            result["changed"] = True
            if not look:
                Path(result["lock"]).write_text("\n".join(lock["options"] + lock["hashed"]) + "\n")
                if result["built"]:
                    pack(app, result["environment"], params["links"], archive)
                else:
                    pack(app, {}, {}, source)
    forget(cache, params["keep"])
    return result


def wanted(params: dict[str, Any]) -> Wanted:
    """Return what makes the lock."""
    return Wanted(
        names=params["requirements"],
        extras=params["extras"],
        more=params["extra_requirements"],
        pins=read_pins(params["constraints"]),
        index=params["index_url"],
        ca=params["index_ca"],
        pythons=[(python["version"], python["machine"]) for python in params["pythons"]],
        uv=params["uv"],
    )


def released(
    params: dict[str, Any], app: Path, commit: dict[str, Any], lock: dict[str, Any], cache: Path
) -> dict[str, Any]:
    """Return the release's name, and where all that it consists of is found."""
    parts = [lock[name] for name in ("options", "hashed", "open", "complete")]
    options: list[Any] = [parts, params["links"]]
    on_host = bool(params["commands"] or params["install_project"])
    if on_host:  # what comes out depends on where it is made
        options += [params[name] for name in ("commands", "environment", "install_project")]
        options += [
            sorted({(minor(each["version"]), each["machine"]) for each in params["pythons"]})
        ]
    name = name_release(app, str(commit.get("commit", "")), options)
    environment = {"APP_RELEASE": name}
    if params["install_project"]:
        environment["PYTHONPATH"] = f"{params['root']}/{name}/.site-packages"
    archive = cache / f"{name}.tar.gz"
    return {
        "fits": True,
        "id": name,
        "archive": str(archive),  # what hosts get
        "source": str(cache / f".{name}.source.tar.gz"),  # what commands begin with
        "built": archive.exists() or not on_host,
        "environment": environment,
        "lock": str(cache / f"{name}.lock"),
        "lock_hash": digest([*parts, params["hashed"]]),
        "complete": lock["complete"],  # nothing but the lock is to be installed
        "unhashed": lock["open"],  # requirements beside the lock
        "notice": lock["notice"],
    }


def forget(cache: Path, keep: int) -> None:
    """Remove all but the archives used last."""
    archives = sorted(
        cache.glob("[!.]*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for old in archives[keep:]:
        old.unlink()
        old.with_name(old.name.replace(".tar.gz", ".lock")).unlink(missing_ok=True)
