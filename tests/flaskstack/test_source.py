"""Sources of an app: a directory, a commit or an archive. None of them is trusted."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import threading
from base64 import b64encode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flaskstack.errors import ValidationError
from helpers.builder import commit, git


def names(release):
    with tarfile.open(release["archive"]) as archive:
        return set(archive.getnames())


def write(folder, *paths, text=""):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def test_junk_is_left_out(app, pack):
    clean = pack(folder=app)
    write(app, ".venv/bin/python", "shop/__pycache__/web.pyc", "node_modules/x", ".env", "a.pyc")
    os.mkfifo(app / "pipe")
    assert pack(folder=app)["id"] == clean["id"]


def test_files_ignored_by_git_are_left_out(app, pack, tmp_path):
    git(tmp_path, "init", "-q", ".")
    write(app, ".gitignore", text="*.sqlite\n")
    write(app, "notes.sqlite", "untracked.py", "gone.py", "vendor/tool/tool.py")
    git(app, "add", "gone.py")
    (app / "gone.py").unlink()
    git(app / "vendor/tool", "init", "-q", ".")
    found = names(pack(folder=app))
    assert {"untracked.py", "shop/web.py", "vendor/tool/tool.py"} <= found
    assert not found & {"notes.sqlite", "gone.py"}
    write(tmp_path, ".gitignore", text="app\n")
    shutil.rmtree(app / "vendor")
    (app / ".gitignore").unlink()
    assert "notes.sqlite" in names(pack(folder=app))  # the surrounding checkout does not track it


def test_a_checkout_that_git_rejects_is_rejected(app, pack):
    """Git rejects a checkout of another account, for example. Ignored files are then unknown."""
    write(app, ".git", text="gitdir: /nowhere\n")
    with pytest.raises(ValidationError, match="git cannot list the ignored files"):
        pack(folder=app)


def test_links_inside_are_kept_and_links_outside_are_rejected(app, pack):
    (app / "shop/latest.css").symlink_to("static/site.css")
    assert "shop/latest.css" in names(pack(folder=app))
    (app / "shop/passwd").symlink_to("/etc/passwd")
    with pytest.raises(ValidationError, match="link shop/passwd points outside"):
        pack(folder=app, dry_run=True)


def test_inventory_and_secrets_never_enter_a_release(app, pack, tmp_path):
    expected = pack(folder=app)["id"]
    write(app, "inventory/secrets/key.txt", "inventory/hosts.yml", ".local/ssh", text="s3cret-key")
    (app / "hosts.yml").symlink_to("inventory/hosts.yml")
    without = [str(app / "inventory"), str(app / ".local")]
    settings = {"without": without, "secrets": ["s3cret-key", "app"]}
    assert pack(folder=app, cache=app / ".build", **settings)["id"] == expected
    assert pack(folder=app, cache=app / ".build", **settings)["id"] == expected
    with pytest.raises(ValidationError, match="contains an inventory"):
        pack(folder=app / "inventory", **settings)
    write(app, "shop/config.py", text="KEY = 's3cret-key'\n")
    for source in ({"folder": app}, {"archive": packed(app, tmp_path / "a.tar.gz", "shop")}):
        with pytest.raises(
            ValidationError, match=r"(shop|inventory)/\S+ contains a secret"
        ) as refusal:
            pack(**source, **settings)
        assert "s3cret" not in str(refusal.value)


def test_a_git_lfs_pointer_is_rejected(app, pack):
    write(app, "shop/logo.png", text="version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValidationError, match=r"app_source_folder: shop/logo.png .*`git lfs pull`"):
        pack(folder=app)


@pytest.fixture
def repository(app):
    commit(app)
    git(app, "tag", "v1")
    return app


def test_a_git_ref_selects_a_commit(repository, pack):
    first = git(repository, "rev-parse", "HEAD")
    one = pack(git=repository)
    assert one["id"].startswith(first[:7] + "-")
    assert "shop/web.py" in names(one)
    write(repository, "shop/web.py", text="app = 2\n")
    assert pack(git=repository)["id"] == one["id"]
    git(repository, "commit", "-qam", "two")
    assert pack(git=repository)["id"] != one["id"]
    for ref in ("v1", first, first[:9], "main~1"):
        assert pack(git=repository, ref=ref)["id"] == one["id"]
    with pytest.raises(
        ValidationError, match=r"app_source_ref: .* has no branch, tag or commit v2"
    ):
        pack(git=repository, ref="v2")
    last = git(repository, "commit-tree", "HEAD^{tree}", "-m", "on no branch")
    assert pack(git=repository, ref=last)["commit"] == last


def test_a_cached_commit_needs_no_server_even_after_a_killed_run(repository, pack, tmp_path):
    source = {"git": repository, "ref": git(repository, "rev-parse", "HEAD")}
    one = pack(**source)
    repository.rename(tmp_path / "away")
    (clone,) = (tmp_path / "cache/git").glob("*/")
    (clone / "index.lock").touch()
    assert pack(**source)["id"] == one["id"]


def test_credentials_reach_git_but_are_never_shown(repository, pack, tmp_path, monkeypatch):
    """Every account can read the arguments of programs, and Git's trace contains them."""
    expected, seen = f"Basic {b64encode(b'me:s3cret').decode()}", []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            if seen[-1] == expected:
                return super().do_GET()
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            return self.end_headers()

        def log_message(self, *_):
            pass

    git(repository, "update-server-info")
    handler = partial(Handler, directory=repository / ".git")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
        url = f"http://me:%s@127.0.0.1:{server.server_port}/"
        assert pack(git=url % "s3cret")["commit"] == git(repository, "rev-parse", "HEAD")
        with pytest.raises(ValidationError, match=f"127.0.0.1:{server.server_port}") as refusal:
            pack(git=url % "wr0ng")
        server.shutdown()
    assert expected in seen
    shown = (tmp_path / "trace").read_text() + str(refusal.value)
    assert "remote-http" in shown
    configured = "".join(path.read_text() for path in tmp_path.glob("cache/git/*/config"))
    assert not [word for word in ("s3cret", "wr0ng") if word in shown + configured]


def packed(app, path, inside="."):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(app, inside)
    return path


def test_an_archive_is_identified_by_its_content(app, pack, tmp_path):
    expected = pack(folder=app)["id"]
    for inside in (".", "shop-1.0"):
        archive = packed(app, tmp_path / "app.tar.gz", inside)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert pack(archive=archive, checksum=f"sha256:{digest}")["id"] == expected
    archive = shutil.make_archive(tmp_path / "app", "zip", app)
    assert pack(archive=archive)["id"] == expected


def test_a_download_needs_the_right_checksum(app, pack, tmp_path):
    archive = packed(app, tmp_path / "app.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    for _ in range(2):
        with pytest.raises(ValidationError, match=f"app_source_checksum: .* has sha256:{digest}"):
            pack(archive=archive.as_uri(), checksum="sha256:" + "0" * 64)
    source = {"archive": archive.as_uri(), "checksum": f"sha256:{digest}"}
    one = pack(**source)
    archive.unlink()
    assert pack(**source)["id"] == one["id"]


def test_the_app_may_be_in_a_subfolder(repository, pack, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(repository, whole / "web", ignore=shutil.ignore_patterns(".git"))
    expected = pack(folder=whole / "web")["id"]
    assert pack(folder=whole, subfolder="web")["id"] == expected
    archive = packed(whole, tmp_path / "a.tar.gz")
    assert pack(archive=archive, subfolder="web")["id"] == expected
    commit(whole)
    assert pack(git=whole, subfolder="web")["id"].endswith(expected)
    with pytest.raises(ValidationError, match="app_source_subfolder: nowhere"):
        pack(archive=archive, subfolder="nowhere")


@pytest.fixture
def nested(repository, tmp_path, monkeypatch):
    """Return a repository with two levels of submodules."""
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    for name, inside in (("tool", ""), ("theme", "tool")):
        write(tmp_path, f"{name}/{name}.py", text="one\n")
        commit(tmp_path / name)
        if inside:
            git(tmp_path / name, "submodule", "add", "-q", f"../{inside}", f"parts/{inside}")
            commit(tmp_path / name)
    git(repository, "submodule", "add", "-q", "../theme", "web/theme")
    commit(repository)
    return repository


def test_submodules_of_a_commit_are_included(nested, pack, tmp_path):
    first = git(nested, "rev-parse", "HEAD")
    one = pack(git=nested)
    assert {"web/theme/theme.py", "web/theme/parts/tool/tool.py", "shop/web.py"} <= names(one)
    write(tmp_path, "theme/theme.py", text="two\n")
    commit(tmp_path / "theme")
    assert pack(git=nested)["id"] == one["id"]  # the parent commit selects the submodule's commit
    (tmp_path / "theme").rename(tmp_path / "moved")
    assert pack(git=nested, ref=first)["id"] == one["id"]  # from the cache
    git(nested, "config", "--file=.gitmodules", "submodule.web/theme.url", "../moved")
    git(nested / "web/theme", "pull", "-q", tmp_path / "moved", "main")
    commit(nested)
    assert pack(git=nested)["id"] != one["id"]
    (tmp_path / "moved").rename(tmp_path / "away")
    shutil.copy(nested / "requirements.lock", nested / "shop")
    git(nested, "add", "shop")
    git(nested, "commit", "-qm", "a lock")
    found = names(pack(git=nested, subfolder="shop", cache=tmp_path / "other"))
    assert "web.py" in found  # no submodule is fetched


def test_a_release_records_its_commit_and_uncommitted_changes(repository, pack, tmp_path):
    write(repository, ".gitignore", text="*.log\n")
    shutil.copy(repository / "requirements.lock", repository / "shop")
    last = commit(repository)
    write(repository, "debug.log")
    for source in ({"git": repository}, {"folder": repository}):
        release = pack(**source)
        assert (release["commit"], release["revision"]) == (last, last[:12])
    write(repository, "docs.txt")
    assert pack(folder=repository)["revision"] == f"{last[:12]}+"
    assert pack(folder=repository, subfolder="shop")["revision"] == last[:12]
    assert pack(git=repository)["revision"] == last[:12]
    shutil.rmtree(repository / ".git")
    write(tmp_path, ".gitignore", text="*\n")
    git(tmp_path, "init", "-q", ".")
    git(tmp_path, "add", "-f", ".gitignore")
    git(tmp_path, "commit", "-qm", "around")
    assert pack(folder=repository)["commit"] == ""  # not tracked by the surrounding repository


@pytest.fixture
def trace(tmp_path):
    """Return a file that an attack would write, and check that it does not exist."""
    yield tmp_path / "trace"
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "line",
    [
        "url = --upload-pack=touch {trace}; false",
        "url = ../private",
        "url = file://{private}",
        "url = ext::sh -c touch% {trace}",
        "url = https://127.0.0.1:9/x\n    update = !touch {trace}",
    ],
)
def test_a_submodule_runs_nothing_and_cannot_be_a_local_folder(app, pack, tmp_path, trace, line):
    write(tmp_path, "private/s3cret.txt", text="s3cret")
    link = commit(tmp_path / "private")
    line = line.format(trace=trace, private=tmp_path / "private")
    write(app, ".gitmodules", text=f'[submodule "x"]\n    path = sub\n    {line}\n')
    git(app, "init", "-q", "-b", "main", ".")
    git(app, "add", ".")
    git(app, "update-index", "--add", "--cacheinfo", f"160000,{link},sub")
    git(app, "commit", "-qm", "an attack")
    with pytest.raises(ValidationError, match="app_source_git: "):
        pack(git=app)
    assert not list(tmp_path.glob("cache/git/*/modules/x/objects/*/*"))


FOLDER_ATTACKS = {
    "fsmonitor": ["core.fsmonitor=touch {trace}; false"],
    "hooks": ["core.hooksPath={hooks}"],
    "filters": ["filter.a=b.clean=touch {trace}", "filter.a=b.smudge=touch {trace}"],
    "process": ["filter.a=b.process=touch {trace}", "filter.a=b.required=true"],
    "promisor": [
        *("core.repositoryFormatVersion=1", "extensions.partialClone=origin"),
        *("remote.origin.url=.", "remote.origin.uploadpack=touch {trace}; false"),
    ],
}


@pytest.mark.parametrize("attack", FOLDER_ATTACKS)
def test_a_checkout_runs_nothing(app, pack, tmp_path, trace, attack):
    write(tmp_path, "hooks/post-index-change", text=f"#!/bin/sh\ntouch {trace}\n")
    (tmp_path / "hooks/post-index-change").chmod(0o755)
    write(app, ".gitattributes", text="*.py filter=a=b\n")
    commit(app)
    if attack == "promisor":
        tree = git(app, "rev-parse", "HEAD^{tree}")
        (app / ".git/objects" / tree[:2] / tree[2:]).unlink()
    write(app, "shop/web.py", text="app = 3\n")
    with (app / ".git/config").open("a") as config:
        for setting in FOLDER_ATTACKS[attack]:
            name, value = setting.format(trace=trace, hooks=tmp_path / "hooks").rsplit("=", 1)
            section, key = name.rsplit(".", 1)
            section, _, below = section.partition(".")
            below = f' "{below}"' if below else ""
            config.write(f'[{section}{below}]\n{key} = "{value}"\n')
    assert "shop/web.py" in names(pack(folder=app))


def test_the_operators_filters_do_not_apply_to_other_repositories(
    app, pack, tmp_path, trace, monkeypatch
):
    write(app, ".gitattributes", text="* filter=a\n")
    commit(app)
    write(tmp_path, "config", text=f'[filter "a"]\nsmudge = touch {trace}\nrequired = true\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert "shop/web.py" in names(pack(git=app))


FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../trace", FILE, "")],
        [("out", LINK, "{outside}"), ("out/trace", FILE, "")],
        [("out", HARD, "{outside}/private"), ("out", FILE, "")],
        [("only", LINK, "{outside}")],
        [("a", FILE, ""), ("part", LINK, "{outside}")],
    ],
)
def test_an_archive_cannot_write_outside_its_folder(app, pack, tmp_path, members):
    outside = tmp_path / "outside"
    shutil.copytree(app, outside)
    write(outside, "private", text="mine")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name.format(outside=outside))
            info.type, info.linkname = kind, link.format(outside=outside)
            info.size = 4 if kind == FILE else 0
            archive.addfile(info, io.BytesIO(b"evil"))
    subfolder = "part" if members[-1][0] == "part" else ""
    with pytest.raises(ValidationError, match=r"app_(source|requirements)"):
        pack(archive=tmp_path / "a.tar", subfolder=subfolder)
    assert (outside / "private").read_text() == "mine"
    assert not [*tmp_path.glob("**/trace")]
