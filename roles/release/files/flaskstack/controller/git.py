"""Export commits with git, running no command that a repository or its configuration sets.

It runs git: dulwich and pygit2 use neither the operator's SSH configuration nor stored credentials.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from flaskstack.errors import ValidationError, run

REFS = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/remote/HEAD"]
ID = re.compile(r"[0-9a-f]{40}")
SETTINGS = [
    ("core.fsmonitor", "false"),
    ("core.hooksPath", os.devnull),
    ("safe.bareRepository", "explicit"),
    ("submodule.recurse", "false"),
]
LOGIN = '!f() { printf "username=%s\\npassword=%s\\n" "$GIT_LOGIN_USER" "$GIT_LOGIN_PASSWORD"; }; f'


def protocols() -> dict[str, str]:
    """Return the environment that restricts the protocols of a repository's URLs."""
    return {"GIT_ALLOW_PROTOCOL": os.environ.get("GIT_ALLOW_PROTOCOL", "https:ssh")}


def split_login(url: str) -> tuple[str, str]:
    """Return a URL without its login, and the login."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url, ""
    login, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=host).geturl(), login


def repository(folder: Path, url: str = "") -> Callable[..., str]:
    """Return a function that runs git in a folder, without network access unless `env` is given.

    All configured filters are disabled by name. The login of the URL is passed in the environment,
    as all users can read command lines.
    """
    known = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}
    known |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    listed = run(["git", "-C", str(folder), "config", "-z", "--name-only", "--list"], env=known)
    filters = sorted({name for name in listed.split("\0") if name.startswith("filter.")})
    settings = SETTINGS + [(n, "false" if n.endswith(".required") else "") for n in filters]
    bare, login = split_login(url)
    if login:
        user, _, password = login.partition(":")
        known |= {"GIT_LOGIN_USER": unquote(user), "GIT_LOGIN_PASSWORD": unquote(password)}
        server = f"credential.{'/'.join(bare.split('/')[:3])}.helper"
        settings += [(server, ""), (server, LOGIN)]
    for number, (name, value) in enumerate(settings, int(known.get("GIT_CONFIG_COUNT", 0))):
        known |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        known["GIT_CONFIG_COUNT"] = str(number + 1)

    def git(*arguments: str, env: dict[str, str] | None = None) -> str:
        reach = {"GIT_ALLOW_PROTOCOL": "none"} if env is None else env
        return run(["git", "-C", str(folder), *arguments], env=known | reach)

    return git


def describe(git: Callable[..., str]) -> dict[str, str | bool]:
    """Return id and `git describe --tags` of the commit checked out."""
    tag = ""
    with suppress(ValidationError):  # there is no tag
        tag = git("describe", "--tags", "HEAD").strip()
    return {"commit": git("rev-parse", "HEAD").strip(), "tag": tag}


def known_files(folder: Path) -> list[str] | None:
    """Return the files in a folder that git does not ignore; None when it is not a checkout."""
    if not any((above / ".git").exists() for above in (folder, *folder.parents)):
        return None
    try:
        listed = repository(folder)("ls-files", "-coz", "--exclude-standard", "--", ".")
    except ValidationError as error:
        raise ValidationError(
            f"app_source_folder: git cannot list the ignored files of {folder}: {error}"
        ) from error
    return [name for name in listed.split("\0") if name]


def checkout(folder: Path) -> dict[str, str | bool]:
    """Describe the commit checked out in a folder, and whether files differ from it."""
    status = ("status", "--porcelain", "--untracked-files=all", "--ignore-submodules=dirty")
    try:
        git = repository(folder)
        if not git("ls-files", "-z", "--", "."):
            return {}
        return describe(git) | {"dirty": bool(git(*status, "--", "."))}
    except ValidationError:  # no checkout, no commit yet, or no git
        return {}


def export(url: str, ref: str, subfolder: str, target: Path, cache: Path) -> dict[str, str | bool]:
    """Check out a commit with its submodules into an empty folder, and describe it.

    Fetched commits stay in the cache, so a known commit needs no server.
    """
    bare, _ = split_login(url)
    clone = cache / "git" / hashlib.sha256(bare.encode()).hexdigest()[:12]
    clone.parent.mkdir(exist_ok=True)
    with clone.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in [*clone.rglob("*.lock"), clone / "index"]:  # left by a killed run
            left.unlink(missing_ok=True)
        git = repository(target, url)
        git("init", "--quiet", "--template=", f"--separate-git-dir={clone}")
        git("config", "remote.origin.url", bare)
        git("checkout", "--quiet", "--force", "--detach", fetch(git, bare, ref))
        if paths := submodules(git, subfolder):
            update(git, paths, clone / "modules")
        return describe(git)


def fetch(git: Callable[..., str], url: str, ref: str) -> str:
    """Return the commit id of a branch, tag or id on the server."""
    resolve = ("rev-parse", "--verify", "--quiet", f"{ref or 'refs/remote/HEAD'}^{{commit}}")
    for refs in [[], REFS, [ref]] if ID.fullmatch(ref) else [REFS]:  # a commit may be on no branch
        with nullcontext() if refs == REFS else suppress(ValidationError):
            if refs:
                git("fetch", "--quiet", "--prune", "--update-head-ok", "origin", *refs, env={})
        with suppress(ValidationError):
            return git(*resolve).strip()
    raise ValidationError(
        f"app_source_ref: {url} has no branch, tag or commit {ref}.", "app_source_ref: main"
    )


def submodules(git: Callable[..., str], folder: str) -> list[str]:
    """Return the submodules with a URL that are in a folder or contain it."""
    entries = [line.partition("\t") for line in git("ls-files", "-sz").split("\0")]
    links = [path for mode, _, path in entries if mode.startswith("160000 ")]
    try:
        named = git("config", "--blob=HEAD:.gitmodules", "-z", "--get-regexp", r"\.path$")
    except ValidationError:  # no submodules
        return []
    known = {entry.partition("\n")[2] for entry in named.split("\0")} & set(links)
    app = PurePosixPath(folder)
    return [p for p in known if app.is_relative_to(p) or PurePosixPath(p).is_relative_to(app)]


def update(git: Callable[..., str], paths: list[str], kept: Path) -> None:
    """Check out submodules from the cache, or from their current URLs if that fails."""
    for last in (not kept.exists(), True):
        try:
            git("submodule", "--quiet", "update", "--init", "--recursive", "--", *paths,
                env=protocols())  # fmt: skip
            return
        except ValidationError as error:
            if last:
                raise ValidationError(
                    f"app_source_git: {error}\nThe protocols of submodules are those of "
                    f"GIT_ALLOW_PROTOCOL, here {protocols()['GIT_ALLOW_PROTOCOL']}."
                ) from error
            git("submodule", "--quiet", "deinit", "--force", "--", *paths)
            shutil.rmtree(kept)
