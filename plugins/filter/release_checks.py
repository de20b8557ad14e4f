"""Checks of the settings of role release, for filter `problems`."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from problems import check

EXAMPLE = "{{ inventory_dir }}/../.."
SOURCES = ["app_source_folder", "app_source_git", "app_source_archive"]
PROJECT = re.compile(r"(.*/)?(uv\.lock|pyproject\.toml)")
PYTHON = re.compile(r"3\.(?![12]$)\d+|[A-Za-z][\w.-]*|/.+")
# Without an algorithm, a digest is SHA-256.
ALGORITHMS = {"", *(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))}
INDEX = re.compile(r"(https://.*|http://(localhost|127\.0\.0\.1)[:/].*)?")


def release_checks(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the checks of role release and of the app variables that it reads."""
    checks = []

    def add(variable: str, ok: Any, reason: str, example: Any, **more: Any) -> None:
        checks.append(check(variable, ok, reason, example=example, **more))

    folder, names = settings["app_source_folder"], settings["app_requirements"]
    source = Path(folder, settings["app_source_subfolder"])
    names = names if isinstance(names, list) else [names]
    add(
        "app_source_folder",
        sum(bool(settings[name]) for name in SOURCES) == 1,
        "or app_source_git or app_source_archive must be set, and only one of them",
        EXAMPLE,
    )
    if folder:
        there = source.is_dir()
        reason = "must be a folder on this machine"
        add("app_source_folder", there, reason, EXAMPLE, value=str(source))
        missing = [name for name in names if there and not (source / name).is_file()]
        reason = f"must be files in {source}; `uv lock` or `uv pip compile --generate-hashes` "
        reason += "makes one"
        listed = ", ".join(missing)
        add("app_requirements", not missing, reason, "requirements.lock", value=listed)
        project = any((source / name).is_file() for name in ("pyproject.toml", "setup.py"))
        reason = f"takes a pyproject.toml in {source} with a build system"
        install = settings["app_install_project"]
        add("app_install_project", project or not there or not install, reason, False)
    remote = "://" in settings["app_source_archive"]
    reason = "must be set, since app_source_archive is downloaded"
    digest = settings["app_source_checksum"]
    add("app_source_checksum", digest or not remote, reason, "sha256:9f86d081…")
    known = digest.lower().rpartition(":")[0] in ALGORITHMS
    reason = f"must begin with an algorithm: {', '.join(sorted(ALGORITHMS - {''}))}"
    add("app_source_checksum", known, reason, "sha256:9f86d081…")
    reason = "must name at least one requirements file"
    add("app_requirements", names, reason, ["requirements.txt"])
    reason = "belong to a project, so app_requirements must name its uv.lock or pyproject.toml"
    add("app_extras", not settings["app_extras"] or any(map(PROJECT.fullmatch, names)), reason, [])
    reason = "must be a version in quotes (3.10 without them is 3.1), the name of a program or its "
    reason += "path"
    add("app_python", PYTHON.fullmatch(settings["app_python"]), reason, '"3.12"')
    pins = settings["app_constraints"]
    given = isinstance(pins, list) or not pins or (isinstance(pins, str) and Path(pins).is_file())
    reason = "must be pins, or a file on this machine with one a line"
    add("app_constraints", given, reason, ["flask==3.1.2"])
    ca = settings["app_index_ca"]
    reason = "must be a file on this machine, with the certificate of the CA"
    add("app_index_ca", not ca or Path(ca).is_file(), reason, "{{ inventory_dir }}/index-ca.pem")
    index = INDEX.fullmatch(settings["app_index_url"])
    reason = "must begin with https://, since what comes from it runs on the host"
    add("app_index_url", index, reason, "https://pypi.org/simple", value="********")
    reason = "must be 2 or more, so that the previous release is kept for a rollback"
    add("release_keep", int(settings["release_keep"]) >= 2, reason, 5)
    serial = settings["release_serial"]
    batches = serial if isinstance(serial, list) else [serial]
    sizes = batches and all(re.fullmatch("[1-9][0-9]*%?", str(size)) for size in batches)
    reason = "must be a number of hosts or a percentage, or a list of these"
    add("release_serial", sizes, reason, [1, "50%"])
    reason = "must be 1 or more; release_dump turns dumps off"
    add("release_dump_keep", int(settings["release_dump_keep"]) >= 1, reason, 5)
    reason = "must be 60 seconds or more, and longer than a deploy takes"
    add("release_lock_timeout", int(settings["release_lock_timeout"]) >= 60, reason, 3600)
    reason = "must be between 0 and 600 seconds"
    add("release_watch", 0 <= float(settings["release_watch"]) <= 600, reason, 1)
    paths = all(re.fullmatch(r'/[!-"$-~]*', path) for path in settings["release_warm_up"])
    reason = "must be URL paths that begin with a slash, with spaces and other letters as %…"
    add("release_warm_up", paths, reason, ["/"])
    reason = "must be 1 second or more"
    add("release_health_timeout", int(settings["release_health_timeout"]) >= 1, reason, 30)
    return checks


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"release_checks": release_checks}
