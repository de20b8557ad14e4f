"""Create reproducible archives of an app's files.

It uses tarfile, since neither tar nor shutil can derive each file's date from its content.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from flaskstack.controller.source import files

FORMAT = 3  # increment when the same source results in a different archive


def describe(app: Path) -> list[tuple[str, int, str]]:
    """Return name, permissions (0 for a link) and hash of each file."""
    tree = []
    for name in sorted(files(app)):
        path = app / name
        if path.is_symlink():
            tree.append((name, 0, hashlib.sha256(os.readlink(path).encode()).hexdigest()))
        else:
            with path.open("rb") as file:
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                tree.append((name, mode, hashlib.file_digest(file, "sha256").hexdigest()))
    return tree


def name_release(app: Path, commit: str, options: list[Any]) -> str:
    """Return the release's name: a hash of its content and options."""
    digest = hashlib.sha256(json.dumps([FORMAT, options, describe(app)]).encode()).hexdigest()[:12]
    return f"{commit[:7]}-{digest}" if commit else digest


def pack(app: Path, environment: dict[str, str], links: dict[str, str], path: Path) -> None:
    """Write the archive: sorted files without owner or date, then the links out of the release."""
    below = tuple(f"{link}/" for link in links)
    shipped = [entry for entry in describe(app) if not f"{entry[0]}/".startswith(below)]
    names = [*links, *(name for name, _, _ in shipped)]
    around = {str(folder) for name in names for folder in Path(name).parents[:-1]}
    partial = path.with_name(f".{path.name}")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for folder in sorted(around):
            archive.addfile(member(folder, type=tarfile.DIRTYPE, mode=0o755))
        for name, mode, digest in shipped:
            file, date = app / name, dated(digest)
            if mode:
                size = file.stat().st_size
                with file.open("rb") as content:
                    archive.addfile(member(name, mode=mode, size=size, mtime=date), content)
            else:
                link = os.readlink(file)
                archive.addfile(member(name, type=tarfile.SYMTYPE, linkname=link, mtime=date))
        text = "".join(f'{name}="{value}"\n' for name, value in environment.items()).encode()
        archive.addfile(member(".release.env", size=len(text)), io.BytesIO(text))
        for name, target in links.items():
            archive.addfile(member(name, type=tarfile.SYMTYPE, linkname=target))
    partial.rename(path)


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    """Return a member of an archive."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def dated(digest: str) -> int:
    """Derive a file's date from its hash, since nginx computes an ETag from date and size."""
    return 315532800 + int(digest[:7], 16) * 4  # between 1980 and 2014
