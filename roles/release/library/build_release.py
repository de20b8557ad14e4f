r"""Turn an app's source into one archive that is the same wherever and whenever it is made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = """
module: build_release
short_description: Build a release of an app on the controller
description:
  - Names a release after everything that makes it, so that the same source and settings are the same release.
  - Only reads the source. All it writes is below I(cache).
options:
  source:
    type: dict
    required: true
    description: Where the app comes from, as one of I(folder), I(git) and I(archive).
    suboptions:
      folder: {type: str, description: Folder on the controller. What git ignores there is left out.}
      git: {type: str, description: URL of a git repository.}
      ref: {type: str, description: "Branch, tag or commit of I(git); its default branch when empty."}
      archive: {type: str, description: "A tar or zip file, or its URL."}
      checksum: {type: str, description: "Checksum of I(archive), as algorithm:digest."}
      subfolder: {type: str, description: Folder of the app inside its source.}
  requirements: {type: str, required: true, description: Lock file inside the app.}
  hashed: {type: bool, default: true, description: Refuse a lock without hashes.}
  commands: {type: list, elements: str, default: [], description: Commands run in the build folder.}
  shared_paths: {type: list, elements: str, default: [], description: Folders linked to shared ones.}
  cache: {type: path, required: true, description: Folder of built archives.}
  keep: {type: int, default: 5, description: Archives to keep in I(cache).}
  expected: {type: str, description: "Write the archive, if it is this release. Without it, only look."}
author: Flaskstack
"""
RETURN = """
id: {type: str, returned: always, description: Name of the release.}
archive: {type: str, returned: always, description: File of the release on the controller.}
lock: {type: str, returned: always, description: Its lock file on the controller.}
lock_hash: {type: str, returned: always, description: Names what the lock installs.}
requires_python: {type: str, returned: always, description: What pyproject.toml says.}
"""

FORMAT = 1  # raise when the same source gives another archive than before
JUNK = {
    ".DS_Store", ".cache", ".coverage", ".env", ".git", ".hg", ".mypy_cache", ".nox", ".pytest_cache",
    ".release.env", ".ruff_cache", ".svn", ".tox", ".venv", "__pycache__", "node_modules", "venv",
}  # fmt: skip
GIT = ["git", "-c", "safe.directory=*"]


class RefusedError(Exception):
    """What is wrong with the source, in words for the person who set it."""

    def __str__(self) -> str:
        """Leave out a token that a URL carries."""
        return re.sub(r"://[^/@\s]+@", "://", super().__str__())


def run(command: list[str], **options: Any) -> str:
    """Return a command's output, or refuse with the last of it."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)
    except FileNotFoundError as error:
        raise RefusedError(f"{command[0]} is not installed on the controller") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise RefusedError(f"`{' '.join(command)}` failed with code {done.returncode}:\n{tail}")
    return done.stdout


def files(folder: Path) -> Iterator[str]:
    """Name the files and links below a folder, without junk."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = [name for name in folders if name not in JUNK and name not in links]
        for name in names + links:
            path = Path(parent, name)
            if name not in JUNK and not name.endswith(".pyc") and (path.is_symlink() or path.is_file()):
                yield path.relative_to(folder).as_posix()


def source_files(folder: Path) -> list[str]:
    """Name what a folder has to give: all but junk, and but what git is told to ignore."""
    names = set(files(folder))
    try:
        tracked = run([*GIT, "-C", str(folder), "ls-files", "-coz", "--exclude-standard", "--", "."])
    except RefusedError:  # not a git checkout, or no git
        return sorted(names)
    known = [name for name in tracked.split("\0") if name]
    nested = {name.rstrip("/") for name in known if (folder / name).is_dir() and not (folder / name).is_symlink()}
    chosen = names.intersection(known)
    for name in nested:  # a submodule or a checkout inside this one
        chosen.update(f"{name}/{below}" for below in source_files(folder / name))
    return sorted(chosen or names)  # nothing: the whole folder is ignored by a checkout around it


def stage_folder(source: Path, target: Path, without: Path) -> None:
    """Copy a folder."""
    if not source.is_dir():
        raise RefusedError(f"app_source_folder: {source} is not a folder on the controller")
    for name in source_files(source):
        if without in (source / name).resolve().parents:
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name, follow_symlinks=False)


def stage_git(url: str, ref: str, target: Path, cache: Path) -> str:
    """Export a commit and return its id. What was fetched before is not fetched again."""
    mirror = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:12]
    git = [*GIT, f"--git-dir={mirror}"]
    resolve = [*git, "rev-parse", "--verify", "--quiet", f"{ref or 'refs/remote/HEAD'}^{{commit}}"]
    if not (mirror / "HEAD").exists():
        run(["git", "init", "--quiet", "--bare", str(mirror)])
    try:
        if not re.fullmatch(r"[0-9a-f]{40}", ref):
            raise RefusedError
        commit = run(resolve).strip()
    except RefusedError:
        refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/remote/HEAD"]
        run([*git, "fetch", "--quiet", "--prune", url, *refs], env={**os.environ, "GIT_TERMINAL_PROMPT": "0"})
        try:
            commit = run(resolve).strip()
        except RefusedError as error:
            raise RefusedError(f"app_source_ref: {url} has no branch, tag or commit {ref}") from error
    tree = target.parent / "tree.tar"
    run([*git, "archive", "--format=tar", f"--output={tree}", commit])
    unpack(tree, target)
    return commit


def stage_archive(source: str, checksum: str, target: Path, cache: Path) -> None:
    """Unpack a file or a download, whose checksum must be right."""
    path = Path(source)
    if "://" in source:
        path = cache / "downloads" / hashlib.sha256(f"{source} {checksum}".encode()).hexdigest()[:12]
        if not path.exists():
            download(source, path)
    if not path.is_file():
        raise RefusedError(f"app_source_archive: {path} is not a file on the controller")
    if checksum:
        algorithm, _, wanted = checksum.partition(":")
        if algorithm not in hashlib.algorithms_guaranteed or not wanted:
            raise RefusedError(f"app_source_checksum: {checksum} is not like sha256:<digest>")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != wanted.lower():
            if path.parent == cache / "downloads":
                path.unlink()
            raise RefusedError(f"app_source_checksum: {source} has {algorithm}:{found}, not {checksum}")
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


def stage(source: dict[str, Any], target: Path, cache: Path) -> tuple[Path, str]:
    """Put the app's files into a folder of their own; return it, and the commit if there is one."""
    target.mkdir()
    commit, subfolder = "", source["subfolder"] or ""
    if source["folder"]:
        # A folder knows what git ignores, so the app's part is taken before it is copied.
        stage_folder(Path(source["folder"], subfolder).resolve(), target, without=cache)
        return target, commit
    if source["git"]:
        commit = stage_git(source["git"], source["ref"], target, cache)
    else:
        stage_archive(source["archive"], source["checksum"], target, cache)
        inside = list(target.iterdir())
        if len(inside) == 1 and inside[0].is_dir() and [inside[0].name] != subfolder.split("/")[:1]:
            target = inside[0]  # archives of releases are packed like this
    app = target / subfolder
    if not app.is_dir():
        raise RefusedError(f"app_source_subfolder: {subfolder} is not a folder of the source")
    return app, commit


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
            raise RefusedError(f"the link {name} points outside the app's folder, which is all that is shipped")
        tree.append((name, 0 if link else mode(path), content_hash(path)))
    digest = hashlib.sha256(json.dumps([FORMAT, options, tree]).encode()).hexdigest()[:12]
    return f"{commit[:7]}-{digest}" if commit else digest


def read_lock(app: Path, name: str, hashed: bool) -> bytes:
    """Return the lock file, if it alone says what is installed."""
    if not (app / name).is_file():
        raise RefusedError(
            f"app_requirements: the app has no file {name}. Make it with "
            f"`uv pip compile --generate-hashes pyproject.toml -o {name}` or `pip-compile --generate-hashes`"
        )
    content = (app / name).read_bytes()
    text = content.decode()
    if found := re.search(r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.{0,2}/).*", text, re.MULTILINE):
        raise RefusedError(f"app_requirements: {name} must be complete in itself, but has the line {found.group(0)!r}")
    if not re.search(r"^gunicorn\b", text, re.MULTILINE | re.IGNORECASE):
        raise RefusedError(
            f"app_requirements: {name} does not hold gunicorn. Add it to the app's dependencies and lock"
        )
    if hashed and "--hash=" not in text:
        raise RefusedError(
            f"app_requirements: {name} has no hashes. Lock with --generate-hashes, or set app_requirements_hashed"
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
    """Write the archive: files in order, of no owner and no date, then what links the release to its host."""
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
            member.type, member.linkname = tarfile.SYMTYPE, "../" * (shared.count("/") + 2) + f"shared/{shared}"
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
    """Give a file a date made of its content: nginx makes its ETag of date and size, browsers keep files by it."""
    return 315532800 + int(digest[:7], 16) * 4  # between 1980 and 2014


def build(params: dict[str, Any]) -> dict[str, Any]:
    """Look at the source and, if asked to, build it."""
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
            "requires_python": read_requires_python(app),
        }
        if not params["expected"]:
            return result
        if name != params["expected"]:
            raise RefusedError(
                f"the source changed while it was built ({params['expected']}, now {name}): run it again"
            )
        lock_file.write_bytes(lock)
        if archive.exists():
            os.utime(archive)
        else:
            for command in params["commands"]:
                run(["/bin/sh", "-e", "-c", command], cwd=app)
            pack(app, name, shared_paths, archive)
            result["changed"] = True
    forget(cache, params["keep"])
    return result


def forget(cache: Path, keep: int) -> None:
    """Remove all but the archives used last."""
    archives = sorted(cache.glob("[!.]*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[keep:]:
        old.unlink()
        old.with_name(old.name.replace(".tar.gz", ".lock")).unlink(missing_ok=True)


def main() -> None:
    """Run as an Ansible module."""
    text = {"type": "str", "default": ""}
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "source": {
                "type": "dict",
                "required": True,
                "options": dict.fromkeys(("folder", "git", "ref", "archive", "checksum", "subfolder"), text),
            },
            "requirements": {"type": "str", "required": True},
            "hashed": {"type": "bool", "default": True},
            "commands": texts,
            "shared_paths": texts,
            "cache": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 5},
            "expected": text,
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**build(module.params))
    except RefusedError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
