"""A release is named after what makes it, and built the same anywhere."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import pytest

ROLE = Path(__file__).parents[2] / "roles/release"


def load(name, path):
    """Import a part of the role as Ansible does."""
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


app_source = load("ansible.module_utils.app_source", ROLE / "module_utils/app_source.py")
build_release = load("build_release", ROLE / "library/build_release.py")

LOCK = "gunicorn==27.0.0 \\\n    --hash=sha256:00\n"


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "app"
    (folder / "shop/static").mkdir(parents=True)
    (folder / "shop/web.py").write_text("app = 1\n")
    (folder / "shop/static/site.css").write_text("a {}\n")
    (folder / "requirements.lock").write_text(LOCK)
    (folder / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\n')
    return folder


@pytest.fixture
def pack(tmp_path):
    def pack(cache="cache", source=None, look=False, **settings):
        names = ("folder", "git", "ref", "archive", "checksum", "subfolder")
        given = dict.fromkeys(names, "") | {name: str(value) for name, value in source.items()}
        params = {"requirements": "requirements.lock", "hashed": True, "commands": []}
        params |= {"shared_paths": [], "keep": 5, "cache": str(tmp_path / cache), "source": given}
        return build_release.build(params | settings, look)

    return pack


@pytest.fixture
def build(pack):
    return partial(pack, look=True)


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", *who, "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def names(release):
    with tarfile.open(release["archive"]) as archive:
        return set(archive.getnames())


def test_looking_writes_no_archive(app, build):
    release = build(source={"folder": app})
    assert release["changed"]
    assert not Path(release["archive"]).exists()
    assert release["requires_python"] == ">=3.11"


def test_the_same_content_is_the_same_archive(app, pack, tmp_path):
    one = pack(source={"folder": app})
    copy = shutil.copytree(app, tmp_path / "copy", copy_function=shutil.copy)
    (copy / "shop/web.py").chmod(0o600)
    os.utime(copy / "shop/web.py", (0, 0))
    two = pack(source={"folder": copy}, cache="other")
    assert one["changed"]
    assert two["changed"]
    assert one["id"] == two["id"]
    assert Path(one["archive"]).read_bytes() == Path(two["archive"]).read_bytes()


def test_a_second_build_does_nothing(app, pack):
    pack(source={"folder": app})
    assert not pack(source={"folder": app})["changed"]


@pytest.mark.parametrize(
    "settings",
    [{"commands": ["true"]}, {"shared_paths": ["uploads"]}, {"hashed": False}],
)
def test_whatever_makes_the_release_names_it(app, build, settings):
    assert build(source={"folder": app})["id"] != build(source={"folder": app}, **settings)["id"]


def test_code_names_the_release_and_the_lock_the_environment(app, build):
    before = build(source={"folder": app})
    (app / "shop/web.py").write_text("app = 2\n")
    code = build(source={"folder": app})
    (app / "requirements.lock").write_text(LOCK + "\n")
    lock = build(source={"folder": app})
    assert len({before["id"], code["id"], lock["id"]}) == 3
    assert before["lock_hash"] == code["lock_hash"] != lock["lock_hash"]


def test_files_have_dates_of_their_content(app, pack):
    """Nginx makes its ETag of date and size: for another content of that size, it needs another."""

    def date(release):
        with tarfile.open(release["archive"]) as archive:
            return archive.getmember("shop/static/site.css").mtime

    one = pack(source={"folder": app})
    (app / "shop/web.py").write_text("app = 2\n")
    two = pack(source={"folder": app})
    (app / "shop/static/site.css").write_text("b {}\n")
    three = pack(source={"folder": app})
    assert date(one) == date(two) != date(three)


def test_a_release_knows_itself_and_its_shared_folders(app, pack):
    (app / "var/uploads").mkdir(parents=True)
    (app / "var/uploads/old.png").write_text("")
    release = pack(source={"folder": app}, shared_paths=["var/uploads", "media/"])
    with tarfile.open(release["archive"]) as archive:
        assert (
            archive.extractfile(".release.env").read().decode()
            == f'APP_RELEASE="{release["id"]}"\n'
        )
        assert archive.getmember("var/uploads").linkname == "../../../shared/var/uploads"
        assert archive.getmember("media").linkname == "../../shared/media"
        assert {(member.uid, member.uname) for member in archive} == {(0, "")}
    assert "var/uploads/old.png" not in names(release)


def test_junk_is_left_out(app, pack):
    clean = pack(source={"folder": app})
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
    assert pack(source={"folder": app})["id"] == clean["id"]


def test_what_git_ignores_is_left_out(app, pack, tmp_path):
    git(tmp_path, "init", "-q", ".")
    (app / ".gitignore").write_text("*.sqlite\n")
    (app / "notes.sqlite").write_text("")
    (app / "untracked.py").write_text("")
    git(app, "add", "shop/web.py")
    (app / "gone.py").write_text("")
    git(app, "add", "gone.py")
    (app / "gone.py").unlink()
    found = names(pack(source={"folder": app}))
    assert "untracked.py" in found
    assert "shop/web.py" in found
    assert not found & {"notes.sqlite", "gone.py"}


def test_a_checkout_inside_the_folder_is_taken_too(app, pack):
    (app / "vendor/tool").mkdir(parents=True)
    (app / "vendor/tool/tool.py").write_text("")
    git(app, "init", "-q", ".")
    git(app / "vendor/tool", "init", "-q", ".")
    assert "vendor/tool/tool.py" in names(pack(source={"folder": app}))


def test_a_folder_ignored_by_the_checkout_around_it_is_taken_whole(app, pack, tmp_path):
    git(tmp_path, "init", "-q", ".")
    (tmp_path / ".gitignore").write_text("app\n")
    assert "shop/web.py" in names(pack(source={"folder": app}))


def test_archives_built_inside_the_source_are_no_part_of_it(app, pack):
    one = pack(source={"folder": app}, cache="app/.build")
    assert pack(source={"folder": app}, cache="app/.build")["id"] == one["id"]


def test_links_are_kept_inside_and_refused_outside(app, build, pack):
    (app / "shop/latest.css").symlink_to("static/site.css")
    assert "shop/latest.css" in names(pack(source={"folder": app}))
    (app / "shop/passwd").symlink_to("/etc/passwd")
    with pytest.raises(app_source.RefusedError, match="link shop/passwd points outside"):
        build(source={"folder": app})


def test_build_commands_run_once_in_a_copy(app, pack):
    commands = ["echo built > shop/built.txt", "mkdir node_modules; touch node_modules/x"]
    release = pack(source={"folder": app}, commands=commands)
    assert "shop/built.txt" in names(release)
    assert "node_modules/x" not in names(release)
    assert not (app / "shop/built.txt").exists()
    assert not pack(source={"folder": app}, commands=commands)["changed"]


def test_a_failing_build_command_says_why_and_leaves_no_archive(app, pack, tmp_path):
    with pytest.raises(
        app_source.RefusedError, match=r"(?s)`.*exit 3` failed with code 3:\nno compiler"
    ):
        pack(source={"folder": app}, commands=["echo no compiler >&2; exit 3"])
    assert not list((tmp_path / "cache").glob("*.tar.gz"))


@pytest.fixture
def repository(app):
    git(app, "init", "-q", "-b", "main", ".")
    git(app, "add", ".")
    git(app, "commit", "-q", "-m", "one")
    git(app, "tag", "v1")
    return app


def test_a_git_ref_is_a_commit(repository, build, pack):
    first = git(repository, "rev-parse", "HEAD")
    one = pack(source={"git": repository})
    assert one["id"].startswith(first[:7] + "-")
    assert "shop/web.py" in names(one)
    (repository / "shop/web.py").write_text("app = 2\n")
    assert build(source={"git": repository})["id"] == one["id"]
    git(repository, "commit", "-qam", "two")
    assert build(source={"git": repository})["id"] != one["id"]
    for ref in ("v1", first, first[:9], "main~1"):
        assert build(source={"git": repository, "ref": ref})["id"] == one["id"]


def test_a_known_commit_needs_no_server(repository, build, tmp_path):
    source = {"git": repository, "ref": git(repository, "rev-parse", "HEAD")}
    one = build(source=source)
    repository.rename(tmp_path / "away")
    assert build(source=source)["id"] == one["id"]


def test_a_ref_that_is_not_there_is_refused(repository, build):
    with pytest.raises(
        app_source.RefusedError, match=r"app_source_ref: .* has no branch, tag or commit v2"
    ):
        build(source={"git": repository, "ref": "v2"})


def test_a_token_in_a_url_is_not_shown(build):
    with pytest.raises(app_source.RefusedError) as refusal:
        build(source={"git": "https://me:s3cret@127.0.0.1:9/x.git"})
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
    release = build(source={"archive": archive, "checksum": f"sha256:{digest}"})
    assert release["id"] == build(source={"folder": app})["id"]


def test_a_zip_is_an_archive_too(app, build, tmp_path):
    archive = shutil.make_archive(tmp_path / "app", "zip", app)
    assert build(source={"archive": archive})["id"] == build(source={"folder": app})["id"]


def test_a_download_is_kept(app, build, tmp_path):
    archive = packed(app, tmp_path / "app.tar.gz")
    source = {
        "archive": archive.as_uri(),
        "checksum": "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    one = build(source=source)
    archive.unlink()
    assert build(source=source)["id"] == one["id"]


@pytest.mark.parametrize("remote", [False, True])
def test_a_wrong_checksum_is_refused(app, build, tmp_path, remote):
    archive = packed(app, tmp_path / "app.tar.gz")
    source = {"archive": archive.as_uri() if remote else archive, "checksum": "sha256:" + "0" * 64}
    for _ in range(2):
        with pytest.raises(app_source.RefusedError, match=r"app_source_checksum: .* has sha256:"):
            build(source=source)


def test_part_of_a_source_is_an_app(repository, build, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copytree(repository, whole / "web", ignore=shutil.ignore_patterns(".git"))
    expected = build(source={"folder": whole / "web"})["id"]
    assert build(source={"folder": whole, "subfolder": "web"})["id"] == expected
    assert (
        build(source={"archive": packed(whole, tmp_path / "a.tar.gz"), "subfolder": "web"})["id"]
        == expected
    )
    with pytest.raises(app_source.RefusedError, match="app_source_subfolder: nowhere"):
        build(source={"archive": tmp_path / "a.tar.gz", "subfolder": "nowhere"})


@pytest.mark.parametrize(
    ("lock", "reason"),
    [
        (None, "has no file requirements.lock"),
        ("flask==3.1 --hash=sha256:00\n", "does not hold gunicorn"),
        ("gunicorn==27.0.0\n", "has no hashes"),
        (LOCK + "-r more.txt\n", "must be complete in itself, without '-r more.txt'"),
        (LOCK + "-e .\n", "must be complete in itself"),
    ],
)
def test_a_lock_that_cannot_work_is_refused(app, build, lock, reason):
    (app / "requirements.lock").unlink()
    if lock is not None:
        (app / "requirements.lock").write_text(lock)
    with pytest.raises(app_source.RefusedError, match=reason):
        build(source={"folder": app})


def test_a_lock_without_hashes_may_be_allowed(app, build):
    (app / "requirements.lock").write_text("gunicorn==27.0.0\n")
    assert build(source={"folder": app}, hashed=False)["id"]


def test_only_the_last_archives_are_kept(app, pack, tmp_path):
    for number in range(4):
        (app / "shop/web.py").write_text(f"app = {number}\n")
        last = pack(source={"folder": app}, keep=2)
    kept = list((tmp_path / "cache").glob("*.tar.gz"))
    assert len(kept) == 2
    assert Path(last["archive"]) in kept
    assert len(list((tmp_path / "cache").glob("*.lock"))) == 2
    assert not list((tmp_path / "cache").glob(".work-*"))
