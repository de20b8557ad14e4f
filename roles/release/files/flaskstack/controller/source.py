"""Stage the source of an app (a folder, a commit or an archive) in a separate folder."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.urls import open_url

from flaskstack.controller.git import checkout, export, known_files
from flaskstack.errors import ValidationError, run

JUNK = {
    *(".DS_Store", ".cache", ".coverage", ".env", ".git", ".hg", ".mypy_cache", ".nox"),
    *(".pytest_cache", ".release.env", ".ruff_cache", ".svn", ".tox", ".venv"),
    *("__pycache__", "node_modules", "venv"),
}
LFS = b"version https://git-lfs.github.com/spec/"
SOURCE_EXAMPLE = 'app_source_folder: "{{ inventory_dir }}/../../shop"'
SECRET_LENGTH = 8  # bytes; shorter secrets would match unrelated text


def files(folder: Path) -> Iterator[str]:
    """Yield the files and links below a folder, without junk."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = [name for name in folders if name not in JUNK and name not in links]
        for name in names + links:
            path = Path(parent, name)
            shipped = name not in JUNK and not name.endswith(".pyc")
            if shipped and (path.is_symlink() or path.is_file()):
                yield path.relative_to(folder).as_posix()


def source_files(folder: Path) -> list[str]:
    """Return the files of a folder, without junk and files that git ignores."""
    names = set(files(folder))
    known = known_files(folder)
    if known is None:
        return sorted(names)
    chosen = names.intersection(known)
    for name in (name.rstrip("/") for name in known):
        if (folder / name).is_dir() and not (folder / name).is_symlink():  # a nested checkout
            chosen.update(f"{name}/{below}" for below in source_files(folder / name))
    return sorted(chosen or names)  # an outer checkout may ignore the whole folder


def stage_folder(source: Path, target: Path, without: list[Path]) -> None:
    """Copy a folder, except for the folders `without`."""
    if not source.is_dir() or source in without:
        reason = "contains an inventory or its secrets" if source.is_dir() else "is not a folder"
        raise ValidationError(
            f"app_source_folder: {source} {reason} on the controller.", SOURCE_EXAMPLE
        )
    without = [folder for folder in without if folder.is_relative_to(source)]
    for name in source_files(source):
        if not any((source / name).resolve().is_relative_to(folder) for folder in without):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name, follow_symlinks=False)


def stage_archive(source: str, checksum: str, target: Path, cache: Path) -> None:
    """Unpack a local or downloaded archive after verifying its checksum."""
    path, remote = Path(source), "://" in source
    if remote:
        name = hashlib.sha256(f"{source} {checksum}".encode()).hexdigest()[:12]
        path = cache / "downloads" / name
        if not path.exists():
            download(source, path)
    if checksum and path.is_file():
        algorithm, _, expected = checksum.lower().rpartition(":")
        algorithm = algorithm or "sha256"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).hexdigest()
        if digest != expected:
            if remote:
                path.unlink()
            raise ValidationError(
                f"app_source_checksum: {source} has {algorithm}:{digest}, not {checksum}. If that "
                "is the file that you mean,",
                f"app_source_checksum: {algorithm}:{digest}",
            )
    unpack(path, target, "app_source_archive")


def unpack(archive: Path, target: Path, variable: str) -> None:
    """Unpack an archive. tar and zipfile keep members inside the folder."""
    try:
        if zipfile.is_zipfile(archive):
            shutil.unpack_archive(archive, target, "zip")
        else:
            run(["tar", "-xf", str(archive), "-C", str(target), "--no-same-owner"])
    except (ValidationError, shutil.ReadError) as error:
        raise ValidationError(f"{variable}: {archive} cannot be unpacked: {error}") from error


def download(url: str, path: Path) -> None:
    """Download a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    try:
        with open_url(url, timeout=60) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as error:
        raise ValidationError(f"app_source_archive: {url} cannot be downloaded: {error}") from error
    partial.rename(path)


def stage(
    source: dict[str, Any], target: Path, cache: Path, without: list[str], secrets: list[str]
) -> tuple[Path, dict[str, str | bool]]:
    """Stage the app's files; return their folder and a description of the commit, if any."""
    target.mkdir()
    commit: dict[str, str | bool] = {}
    app, subfolder = target, source["subfolder"]
    if source["folder"]:
        # git lists files only inside the checkout, so the listed files of the subfolder are copied.
        folder = Path(source["folder"], subfolder).resolve()
        stage_folder(folder, app, [cache, *(Path(each).resolve() for each in without)])
        commit = checkout(folder)
    elif source["git"]:
        commit = export(source["git"], source["ref"], subfolder, target, cache)
        app = target / subfolder
    else:
        stage_archive(source["archive"], source["checksum"], target, cache)
        inside = [path for path in target.iterdir() if path.name != subfolder.split("/")[0]]
        # Release archives usually have one top-level folder.
        packed = len(os.listdir(target)) == len(inside) == 1 and inside[0].is_dir()
        app = (inside[0] if packed else target) / subfolder
    if not app.is_dir() or not app.resolve().is_relative_to(target.resolve()):
        raise ValidationError(
            f"app_source_subfolder: {subfolder} is not a folder of the source.",
            "app_source_subfolder: web",
        )
    variable = next(f"app_source_{name}" for name in ("folder", "git", "archive") if source[name])
    check(app, [text.encode() for text in secrets], variable)
    return app, commit


def check(app: Path, secrets: list[bytes], variable: str) -> None:
    """Reject secrets, Git LFS pointers, and links that point outside the release."""
    for name in files(app):
        path = app / name
        if not path.resolve().is_relative_to(app.resolve()):
            raise ValidationError(
                f"{variable}: the link {name} points outside the folder that is shipped"
            )
        if path.is_symlink() or not path.stat().st_size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            if content[: len(LFS)] == LFS:
                raise ValidationError(
                    f"{variable}: {name} is a Git LFS pointer, not the file. Run `git lfs pull` "
                    "and deploy from that folder,",
                    SOURCE_EXAMPLE,
                )
            if any(len(s) >= SECRET_LENGTH and content.find(s) >= 0 for s in secrets):
                raise ValidationError(
                    f"{variable}: {name} contains a secret of this inventory, and all accounts of "
                    "a host can read a release. Remove it: an app gets secrets in its environment."
                )
