r"""Turn an app's source into one archive that is the same wherever and whenever it is made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from ansible.module_utils.app_source import RefusedError, files, run, stage
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: build_release
short_description: Build a release of an app on the controller
description:
  - Names a release after everything that makes it, and builds it once.
  - Only reads the source. All it writes is below the folder I(cache).
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "source": {
        "type": "dict",
        "required": True,
        "options": {
            "folder": {"type": "str", "default": ""},  # on the controller
            "git": {"type": "str", "default": ""},  # URL
            "ref": {
                "type": "str",
                "default": "",
            },  # branch, tag or commit; empty: the default branch
            "archive": {"type": "str", "default": ""},  # tar or zip file, or its URL
            "checksum": {"type": "str", "default": ""},  # algorithm:digest
            "subfolder": {"type": "str", "default": ""},  # of the app inside its source
        },
    },
    "requirements": {"type": "str", "required": True},  # lock file inside the app
    "hashed": {"type": "bool", "default": True},  # refuse a lock without hashes
    "commands": {"type": "list", "elements": "str", "default": []},  # run in the build folder
    "shared_paths": {"type": "list", "elements": "str", "default": []},  # linked to shared folders
    "cache": {"type": "path", "required": True},  # folder of built archives
    "keep": {"type": "int", "default": 5},  # archives to keep there
}

FORMAT = 1  # raise when the same source gives another archive than before


def mode(path: Path) -> int:
    """Return the permissions that a file has on every host."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def content_hash(path: Path) -> str:
    """Return the hash of a file's content, or of what a link points to."""
    if path.is_symlink():
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_release(app: Path, commit: str, options: list[Any]) -> str:
    """Hash everything that makes the release."""
    tree: list[tuple[str, int, str]] = []
    for name in sorted(files(app)):
        path, link = app / name, (app / name).is_symlink()
        if link and not path.resolve().is_relative_to(app.resolve()):
            raise RefusedError(
                f"the link {name} points outside the app's folder, which is all that is shipped"
            )
        tree.append((name, 0 if link else mode(path), content_hash(path)))
    digest = hashlib.sha256(json.dumps([FORMAT, options, tree]).encode()).hexdigest()[:12]
    return f"{commit[:7]}-{digest}" if commit else digest


def read_lock(app: Path, name: str, hashed: bool) -> bytes:
    """Return the lock file, if it alone says what is installed."""
    if not (app / name).is_file():
        raise RefusedError(
            f"app_requirements: the app has no file {name}. Make it with "
            f"`uv pip compile --generate-hashes pyproject.toml -o {name}`"
        )
    content = (app / name).read_bytes()
    text = content.decode()
    if found := re.search(
        r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.{0,2}/).*", text, re.MULTILINE
    ):
        raise RefusedError(
            f"app_requirements: {name} must be complete in itself, without {found.group(0)!r}"
        )
    if not re.search(r"^gunicorn\b", text, re.MULTILINE | re.IGNORECASE):
        raise RefusedError(
            f"app_requirements: {name} does not hold gunicorn. Add it to the app's dependencies"
        )
    if hashed and "--hash=" not in text:
        raise RefusedError(
            f"app_requirements: {name} has no hashes. Lock with --generate-hashes, "
            "or set app_requirements_hashed to false"
        )
    return content


def read_requires_python(app: Path) -> str:
    """Return which versions of Python the app says that it runs on."""
    try:
        project = tomllib.loads((app / "pyproject.toml").read_text())
    except FileNotFoundError:
        return ""
    except tomllib.TOMLDecodeError as error:
        raise RefusedError(f"pyproject.toml of the app cannot be read: {error}") from error
    return project.get("project", {}).get("requires-python", "")


def pack(app: Path, name: str, shared_paths: list[str], path: Path) -> None:
    """Write the archive: files in order, of no owner or date, then the links to shared folders."""
    entries = [entry for entry in sorted(files(app)) if not is_below(entry, shared_paths)]
    partial = path.with_name(f".{path.name}")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        folders: set[str] = set()
        for entry in entries:
            add_folders(archive, entry, folders)
            member = tarfile.TarInfo(entry)
            member.mtime = dated(content_hash(app / entry))
            if (app / entry).is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(app / entry)
                archive.addfile(member)
                continue
            member.mode, member.size = mode(app / entry), (app / entry).stat().st_size
            with (app / entry).open("rb") as file:
                archive.addfile(member, file)
        content = f'APP_RELEASE="{name}"\n'.encode()
        member = tarfile.TarInfo(".release.env")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
        for shared in shared_paths:
            add_folders(archive, shared, folders)
            member = tarfile.TarInfo(shared)
            member.type, member.linkname = (
                tarfile.SYMTYPE,
                "../" * (shared.count("/") + 2) + f"shared/{shared}",
            )
            archive.addfile(member)
    partial.rename(path)


def is_below(name: str, folders: list[str]) -> bool:
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


def build(params: dict[str, Any], look: bool = False) -> dict[str, Any]:
    """Name the release and build it, unless it was built before or is only looked at."""
    cache = Path(params["cache"]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    shared_paths = [os.path.normpath(path) for path in params["shared_paths"]]
    with tempfile.TemporaryDirectory(dir=cache, prefix=".work-") as work:
        app, commit = stage(params["source"], Path(work, "app"), cache)
        lock = read_lock(app, params["requirements"], params["hashed"])
        options = [params["commands"], shared_paths, params["requirements"], params["hashed"]]
        name = name_release(app, commit, options)
        archive, lock_file = cache / f"{name}.tar.gz", cache / f"{name}.lock"
        result = {
            "changed": False,
            "id": name,
            "archive": str(archive),
            "lock": str(lock_file),
            "lock_hash": hashlib.sha256(lock + str(params["hashed"]).encode()).hexdigest()[:12],
            "requires_python": read_requires_python(app),  # empty when the app does not say
        }
        if archive.exists():
            os.utime(archive)
        else:
            result["changed"] = True
            if not look:
                for command in params["commands"]:
                    run(["/bin/sh", "-e", "-c", command], cwd=app)
                lock_file.write_bytes(lock)
                pack(app, name, shared_paths, archive)
    forget(cache, params["keep"])
    return result


def forget(cache: Path, keep: int) -> None:
    """Remove all but the archives used last."""
    archives = sorted(
        cache.glob("[!.]*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for old in archives[keep:]:
        old.unlink()
        old.with_name(old.name.replace(".tar.gz", ".lock")).unlink(missing_ok=True)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    try:
        module.exit_json(**build(module.params, look=module.check_mode))
    except RefusedError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
