"""One archive of an app's files that is the same wherever and whenever it is packed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flaskstack.controller.source import files
from flaskstack.errors import RefusedError

FORMAT = 2  # raise when the same source gives another archive than before


def mode(path: Path) -> int:
    """Return the permissions that a file has on every host."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def content_hash(path: Path) -> str:
    """Return the hash of a file's content, or of what a link points to."""
    if path.is_symlink():
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(app: Path) -> list[tuple[str, int, str]]:
    """Return name, permissions and hash of each file."""
    tree = []
    for name in sorted(files(app)):
        path, link = app / name, (app / name).is_symlink()
        if link and not path.resolve().is_relative_to(app.resolve()):
            raise RefusedError(
                f"the link {name} points outside the app's folder, which is all that is shipped"
            )
        tree.append((name, 0 if link else mode(path), content_hash(path)))
    return tree


def name_release(app: Path, commit: str, options: list[Any]) -> str:
    """Hash everything that makes the release."""
    digest = hashlib.sha256(json.dumps([FORMAT, options, describe(app)]).encode()).hexdigest()[:12]
    return f"{commit[:7]}-{digest}" if commit else digest


def pack(app: Path, environment: dict[str, str], links: dict[str, str], path: Path) -> None:
    """Write the archive: files in order, of no owner or date, then the links out of the release."""
    dates = {name: dated(digest) for name, _, digest in describe(app)}
    partial = path.with_name(f".{path.name}")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        folders: set[str] = set()
        for entry in dates:
            if is_below(entry, links):
                continue
            add_folders(archive, entry, folders)
            member = tarfile.TarInfo(entry)
            member.mtime = dates[entry]
            if (app / entry).is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(app / entry)
                archive.addfile(member)
                continue
            member.mode, member.size = mode(app / entry), (app / entry).stat().st_size
            with (app / entry).open("rb") as file:
                archive.addfile(member, file)
        content = "".join(f'{name}="{value}"\n' for name, value in environment.items()).encode()
        member = tarfile.TarInfo(".release.env")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        for link, target in links.items():
            add_folders(archive, link, folders)
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    partial.rename(path)


def is_below(name: str, folders: Iterable[str]) -> bool:
    """Say whether a file is in one of the folders."""
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


def add_folders(archive: tarfile.TarFile, name: str, known: set[str]) -> None:
    """Add the folders around a file that are not there yet."""
    for folder in reversed(Path(name).parents[:-1]):
        if str(folder) not in known:
            known.add(str(folder))
            member = tarfile.TarInfo(str(folder))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)


def dated(digest: str) -> int:
    """Date a file by its content, since nginx makes an ETag of its date and size."""
    return 315532800 + int(digest[:7], 16) * 4  # between 1980 and 2014
