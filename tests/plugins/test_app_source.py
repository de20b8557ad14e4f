"""Where an app comes from: a folder, a commit or an archive."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile

import pytest

from releasing import LOCK, RefusedError, commit, git


def names(release):
    with tarfile.open(release["archive"]) as archive:
        return set(archive.getnames())


def test_junk_is_left_out(app, pack):
    clean = pack(folder=app)
    for name in (
        ".venv/bin/python",
        "shop/__pycache__/web.pyc",
        ".pytest_cache/x",
        "node_modules/x",
        ".env",
        "a.pyc",
    ):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("junk")
    os.mkfifo(app / "pipe")
    assert pack(folder=app)["id"] == clean["id"]


def test_what_git_ignores_is_left_out(app, pack, tmp_path):
    git(tmp_path, "init", "-q", ".")
    (app / ".gitignore").write_text("*.sqlite\n")
    (app / "notes.sqlite").write_text("")
    (app / "untracked.py").write_text("")
    git(app, "add", "shop/web.py")
    (app / "gone.py").write_text("")
    git(app, "add", "gone.py")
    (app / "gone.py").unlink()
    found = names(pack(folder=app))
    assert "untracked.py" in found
    assert "shop/web.py" in found
    assert not found & {"notes.sqlite", "gone.py"}


def test_a_checkout_inside_the_folder_is_taken_too(app, pack):
    (app / "vendor/tool").mkdir(parents=True)
    (app / "vendor/tool/tool.py").write_text("")
    git(app, "init", "-q", ".")
    git(app / "vendor/tool", "init", "-q", ".")
    assert "vendor/tool/tool.py" in names(pack(folder=app))


def test_a_folder_ignored_by_the_checkout_around_it_is_taken_whole(app, pack, tmp_path):
    git(tmp_path, "init", "-q", ".")
    (tmp_path / ".gitignore").write_text("app\n")
    assert "shop/web.py" in names(pack(folder=app))


def test_archives_built_inside_the_source_are_no_part_of_it(app, pack):
    one = pack(folder=app, cache="app/.build")
    assert pack(folder=app, cache="app/.build")["id"] == one["id"]


def test_links_are_kept_inside_and_refused_outside(app, build, pack):
    (app / "shop/latest.css").symlink_to("static/site.css")
    assert "shop/latest.css" in names(pack(folder=app))
    (app / "shop/passwd").symlink_to("/etc/passwd")
    with pytest.raises(RefusedError, match="link shop/passwd points outside"):
        build(folder=app)


@pytest.fixture
def repository(app):
    commit(app)
    git(app, "tag", "v1")
    return app


def test_a_git_ref_is_a_commit(repository, build, pack):
    first = git(repository, "rev-parse", "HEAD")
    one = pack(git=repository)
    assert one["id"].startswith(first[:7] + "-")
    assert "shop/web.py" in names(one)
    (repository / "shop/web.py").write_text("app = 2\n")
    assert build(git=repository)["id"] == one["id"]
    git(repository, "commit", "-qam", "two")
    assert build(git=repository)["id"] != one["id"]
    for ref in ("v1", first, first[:9], "main~1"):
        assert build(git=repository, ref=ref)["id"] == one["id"]


def test_a_known_commit_needs_no_server(repository, build, tmp_path):
    source = {"git": repository, "ref": git(repository, "rev-parse", "HEAD")}
    one = build(**source)
    repository.rename(tmp_path / "away")
    assert build(**source)["id"] == one["id"]


def test_a_ref_that_is_not_there_is_refused(repository, build):
    with pytest.raises(RefusedError, match=r"app_source_ref: .* has no branch, tag or commit v2"):
        build(git=repository, ref="v2")


def test_a_token_in_a_url_is_not_shown(build):
    with pytest.raises(RefusedError) as refusal:
        build(git="https://me:s3cret@127.0.0.1:9/x.git")
    assert "127.0.0.1:9/x.git" in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def packed(app, path, inside="."):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(app, inside)
    return path


@pytest.mark.parametrize("inside", [".", "shop-1.0"])
def test_an_archive_is_its_content(app, build, tmp_path, inside):
    archive = packed(app, tmp_path / "app.tar.gz", inside)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    release = build(archive=archive, checksum=f"sha256:{digest}")
    assert release["id"] == build(folder=app)["id"]


def test_a_zip_is_an_archive_too(app, build, tmp_path):
    archive = shutil.make_archive(tmp_path / "app", "zip", app)
    assert build(archive=archive)["id"] == build(folder=app)["id"]


def test_a_download_is_kept(app, build, tmp_path):
    archive = packed(app, tmp_path / "app.tar.gz")
    source = {
        "archive": archive.as_uri(),
        "checksum": "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    one = build(**source)
    archive.unlink()
    assert build(**source)["id"] == one["id"]


@pytest.mark.parametrize("remote", [False, True])
def test_a_wrong_checksum_is_refused(app, build, tmp_path, remote):
    archive = packed(app, tmp_path / "app.tar.gz")
    source = {"archive": archive.as_uri() if remote else archive, "checksum": "sha256:" + "0" * 64}
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"app_source_checksum: .* has sha256:"):
            build(**source)


def test_part_of_a_source_is_an_app(repository, build, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copytree(repository, whole / "web", ignore=shutil.ignore_patterns(".git"))
    expected = build(folder=whole / "web")["id"]
    assert build(folder=whole, subfolder="web")["id"] == expected
    assert build(archive=packed(whole, tmp_path / "a.tar.gz"), subfolder="web")["id"] == expected
    with pytest.raises(RefusedError, match="app_source_subfolder: nowhere"):
        build(archive=tmp_path / "a.tar.gz", subfolder="nowhere")


@pytest.fixture
def nested(repository, tmp_path):
    """Return a repository with one below it, and one below that."""
    for name, inside in (("tool", ""), ("theme", "tool")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.py").write_text("one\n")
        commit(folder)
        if inside:
            git(folder, "submodule", "add", "-q", f"../{inside}", f"parts/{inside}")
            commit(folder)
    git(repository, "submodule", "add", "-q", "../theme", "web/theme")
    commit(repository)
    return repository


def test_submodules_of_a_commit_are_taken_too(nested, pack, tmp_path):
    first = git(nested, "rev-parse", "HEAD")
    expected = {"web/theme/theme.py", "web/theme/parts/tool/tool.py", "shop/web.py"}
    one = pack(git=nested)
    assert expected <= names(one)
    (tmp_path / "theme/theme.py").write_text("two\n")
    commit(tmp_path / "theme")
    assert pack(git=nested)["id"] == one["id"]  # which says what commit of it is meant
    git(nested / "web/theme", "pull", "-q", "origin", "main")
    commit(nested)
    assert pack(git=nested)["id"] != one["id"]
    assert pack(git=nested, ref=first)["id"] == one["id"]


def test_submodules_elsewhere_in_the_source_are_not_asked_for(nested, pack, tmp_path):
    (tmp_path / "theme").rename(tmp_path / "away")
    (nested / "shop/requirements.lock").write_text(LOCK)
    git(nested, "add", "shop")
    git(nested, "commit", "-qm", "a lock")
    assert "web.py" in names(pack(git=nested, subfolder="shop"))


app_git = sys.modules["ansible.module_utils.app_git"]


@pytest.mark.parametrize(
    ("url", "around", "absolute"),
    [
        ("https://example.com/x.git", "https://example.com/shop.git", "https://example.com/x.git"),
        ("../x.git", "https://example.com/me/shop.git", "https://example.com/me/x.git"),
        ("../../you/x", "https://example.com/me/shop/", "https://example.com/you/x"),
        ("./x", "/srv/git/shop", "/srv/git/shop/x"),
        ("../x.git", "git@example.com:me/shop.git", "git@example.com:me/x.git"),
    ],
)
def test_a_submodule_is_named_in_relation_to_its_repository(url, around, absolute):
    assert app_git.absolute(url, around) == absolute


def test_a_release_tells_its_commit(repository, build):
    last = git(repository, "rev-parse", "HEAD")
    for source in ({"git": repository}, {"folder": repository}):
        told = build(**source)
        assert (told["commit"], told["commit_subject"]) == (last, "a commit")
        assert told["commit_date"].startswith("20")
        assert told["dirty"] is False


def test_a_folder_tells_whether_it_is_what_was_committed(repository, build):
    (repository / ".gitignore").write_text("*.log\n")
    commit(repository)
    (repository / "debug.log").write_text("")
    assert build(folder=repository)["dirty"] is False
    (repository / "shop/new.py").write_text("")
    assert build(folder=repository)["dirty"] is True
    assert build(git=repository)["dirty"] is False


def test_what_is_dirty_beside_the_app_does_not_count(repository, build):
    (repository / "docs.txt").write_text("")
    (repository / "shop/requirements.lock").write_text("gunicorn==27.0.0 --hash=sha256:00\n")
    git(repository, "add", "shop")
    git(repository, "commit", "-qm", "lock")
    assert build(folder=repository, subfolder="shop")["dirty"] is False
    assert build(folder=repository)["dirty"] is True


def test_a_folder_that_no_commit_knows_tells_none(app, build, tmp_path):
    assert build(folder=app)["commit"] == ""
    (tmp_path / ".gitignore").write_text("*\n")
    git(tmp_path, "init", "-q", ".")
    git(tmp_path, "add", "-f", ".gitignore")
    git(tmp_path, "commit", "-qm", "around")
    assert build(folder=app)["commit"] == ""
