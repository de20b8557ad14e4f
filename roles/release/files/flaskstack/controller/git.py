"""Commits: what a folder is a checkout of, and an app's files of one commit."""

from __future__ import annotations

import hashlib
import os
import re
from configparser import ConfigParser
from pathlib import Path, PurePosixPath

from flaskstack.errors import RefusedError, run

GIT = ["git", "-c", "safe.directory=*"]
REFS = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/remote/HEAD"]
ID = re.compile(r"[0-9a-f]{40}")


def describe(git: list[str], commit: str) -> dict[str, str]:
    """Return a commit's id, when it was made and the first line of what was said about it."""
    names = ("commit", "commit_date", "commit_subject")
    shown = run([*git, "log", "-1", "--format=%H%x00%cI%x00%s", commit, "--"]).rstrip("\n")
    return dict(zip(names, shown.split("\0"), strict=True))


def checkout(folder: Path) -> dict[str, str | bool]:
    """Say which commit a folder is a checkout of, and whether its files differ from it."""
    git = [*GIT, "-C", str(folder)]
    try:
        known = describe(git, "HEAD")
        tracked = run([*git, "ls-files", "-z", "--", "."])
        changes = run([*git, "status", "--porcelain", "--untracked-files=all", "--", "."])
    except RefusedError:  # no checkout, no commit yet, or no git
        return {}
    return known | {"dirty": bool(changes)} if tracked else {}


def fetch(url: str, ref: str, cache: Path) -> tuple[Path, str]:
    """Return a mirror and the commit meant. What was fetched before is not fetched again."""
    mirror = cache / "git" / hashlib.sha256(url.encode()).hexdigest()[:12]
    git = [*GIT, f"--git-dir={mirror}"]
    resolve = [*git, "rev-parse", "--verify", "--quiet", f"{ref or 'refs/remote/HEAD'}^{{commit}}"]
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    if not (mirror / "HEAD").exists():
        run(["git", "init", "--quiet", "--bare", str(mirror)])
    try:
        if not ID.fullmatch(ref):
            raise RefusedError
        return mirror, run(resolve).strip()
    except RefusedError:
        run([*git, "fetch", "--quiet", "--prune", url, *REFS], env=environment)
    try:
        return mirror, run(resolve).strip()
    except RefusedError as error:
        missing = RefusedError(
            f"app_source_ref: {url} has no branch, tag or commit {ref}.", "app_source_ref: main"
        )
        if not ID.fullmatch(ref):
            raise missing from error
    try:  # a commit on no branch, which a submodule may well be
        run([*git, "fetch", "--quiet", url, ref], env=environment)
        return mirror, run(resolve).strip()
    except RefusedError as error:
        raise missing from error


def export(url: str, ref: str, subfolder: str, target: Path, cache: Path) -> dict[str, str | bool]:
    """Put a commit's files, with those of its submodules, into a folder and describe it."""
    mirror, commit = fetch(url, ref, cache)
    git = [*GIT, f"--git-dir={mirror}"]
    target.mkdir(parents=True, exist_ok=True)
    tree = cache / f".tree-{os.getpid()}.tar"
    try:
        run([*git, "archive", "--format=tar", f"--output={tree}", commit])
        run(["tar", "-xf", str(tree), "-C", str(target), "--no-same-owner"])
    finally:
        tree.unlink(missing_ok=True)
    for path, (below, wanted) in submodules(git, commit, url).items():
        if is_inside(path, subfolder):
            export(below, wanted, "", target / path, cache)
    return describe(git, commit) | {"dirty": False}


def is_inside(path: str, folder: str) -> bool:
    """Say whether a submodule is in a folder, or around it."""
    one, other = PurePosixPath(path), PurePosixPath(folder)
    return one.is_relative_to(other) or other.is_relative_to(one)


def submodules(git: list[str], commit: str, url: str) -> dict[str, tuple[str, str]]:
    """Return the URL and the commit of each submodule, by its path."""
    links = {}
    for line in run([*git, "ls-tree", "-rz", commit]).split("\0"):
        mode, _, path = line.partition("\t")
        if mode.startswith("160000 "):
            links[path] = mode.split()[2]
    if not links:
        return {}
    declared = ConfigParser(interpolation=None)
    declared.read_string(re.sub(r"(?m)^\s+", "", run([*git, "show", f"{commit}:.gitmodules"])))
    urls = {part["path"]: part["url"] for part in declared.values() if "path" in part}
    return {path: (absolute(urls[path], url), link) for path, link in links.items() if path in urls}


def absolute(url: str, around: str) -> str:
    """Return a submodule's URL, which may be said in relation to that of its repository."""
    if not url.startswith(("./", "../")):
        return url
    base = around.rstrip("/")
    while url.startswith(("./", "../")):
        if url.startswith("../"):
            base = re.sub(r"[/:][^/:]*$", "", base)
        url = url.partition("/")[2]
    return f"{base}/{url}"
