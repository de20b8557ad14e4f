"""The source of an app: a folder, a commit or an archive, put into a folder of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaskstack.controller.git import GIT, checkout, export
from flaskstack.errors import RefusedError, run
from ansible.module_utils.urls import open_url

JUNK = {
    *(".DS_Store", ".cache", ".coverage", ".env", ".git", ".hg", ".mypy_cache", ".nox"),
    *(".pytest_cache", ".release.env", ".ruff_cache", ".svn", ".tox", ".venv"),
    *("__pycache__", "node_modules", "venv"),
}


def files(folder: Path) -> Iterator[str]:
    """Name the files and links below a folder, without junk."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = [name for name in folders if name not in JUNK and name not in links]
        for name in names + links:
            path = Path(parent, name)
            if (
                name not in JUNK
                and not name.endswith(".pyc")
                and (path.is_symlink() or path.is_file())
            ):
                yield path.relative_to(folder).as_posix()


def source_files(folder: Path) -> list[str]:
    """Name what a folder has to give: all but junk, and but what git is told to ignore."""
    names = set(files(folder))
    try:
        tracked = run(
            [*GIT, "-C", str(folder), "ls-files", "-coz", "--exclude-standard", "--", "."]
        )
    except RefusedError:  # not a git checkout, or no git
        return sorted(names)
    known = [name for name in tracked.split("\0") if name]
    nested = {
        name.rstrip("/")
        for name in known
        if (folder / name).is_dir() and not (folder / name).is_symlink()
    }
    chosen = names.intersection(known)
    for name in nested:  # a submodule or a checkout inside this one
        chosen.update(f"{name}/{below}" for below in source_files(folder / name))
    return sorted(chosen or names)  # nothing: the whole folder is ignored by a checkout around it


def stage_folder(source: Path, target: Path, without: Path) -> None:
    """Copy a folder."""
    if not source.is_dir():
        raise RefusedError(
            f"app_source_folder: {source} is not a folder on the controller.",
            'app_source_folder: "{{ inventory_dir }}/../../shop"',
        )
    for name in source_files(source):
        if without in (source / name).resolve().parents:
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name, follow_symlinks=False)


def stage_archive(source: str, checksum: str, target: Path, cache: Path) -> None:
    """Unpack a file or a download, whose checksum must be right."""
    path = Path(source)
    if "://" in source:
        path = (
            cache / "downloads" / hashlib.sha256(f"{source} {checksum}".encode()).hexdigest()[:12]
        )
        if not path.exists():
            download(source, path)
    if not path.is_file():
        raise RefusedError(
            f"app_source_archive: {path} is not a file on the controller.",
            'app_source_archive: "{{ inventory_dir }}/shop-1.0.tar.gz"',
        )
    if checksum:
        algorithm, _, wanted = checksum.partition(":")
        if algorithm not in hashlib.algorithms_guaranteed or not wanted:
            raise RefusedError(
                f"app_source_checksum: {checksum} is not an algorithm and a digest.",
                "app_source_checksum: sha256:9f86d081…",
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != wanted.lower():
            if path.parent == cache / "downloads":
                path.unlink()
            raise RefusedError(
                f"app_source_checksum: {source} has {algorithm}:{found}, not {checksum}. If that is"
                " the file that you mean,",
                f"app_source_checksum: {algorithm}:{found}",
            )
    unpack(path, target)


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive, and nothing of it outside the folder: tar and zipfile both see to that."""
    try:
        if zipfile.is_zipfile(archive):
            shutil.unpack_archive(archive, target, "zip")
        else:
            run(["tar", "-xf", str(archive), "-C", str(target), "--no-same-owner"])
    except (RefusedError, shutil.ReadError) as error:
        raise RefusedError(f"app_source_archive: {archive} cannot be unpacked: {error}") from error


def download(url: str, path: Path) -> None:
    """Save what a URL gives, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    try:
        with open_url(url, timeout=60) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise RefusedError(f"app_source_archive: {url} cannot be downloaded: {error}") from error
    partial.rename(path)


def stage(source: dict[str, Any], target: Path, cache: Path) -> tuple[Path, dict[str, str | bool]]:
    """Put the app's files into a folder of their own; return it, and its commit if there is one."""
    target.mkdir()
    commit: dict[str, str | bool] = {}
    subfolder = source["subfolder"]
    if source["folder"]:
        # A folder knows what git ignores, so the app's part is taken before it is copied.
        folder = Path(source["folder"], subfolder).resolve()
        stage_folder(folder, target, without=cache)
        return target, checkout(folder)
    if source["git"]:
        commit = export(source["git"], source["ref"], subfolder, target, cache)
    else:
        stage_archive(source["archive"], source["checksum"], target, cache)
        inside = list(target.iterdir())
        if len(inside) == 1 and inside[0].is_dir() and [inside[0].name] != subfolder.split("/")[:1]:
            target = inside[0]  # archives of releases are packed like this
    app = target / subfolder
    if not app.is_dir():
        raise RefusedError(
            f"app_source_subfolder: {subfolder} is not a folder of the source.",
            "app_source_subfolder: web",
        )
    return app, commit
