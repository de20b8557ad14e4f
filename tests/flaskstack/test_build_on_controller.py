"""A release is named after its inputs, and its build is reproducible."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from flaskstack.controller.build import repack
from flaskstack.errors import ValidationError
from helpers.builder import LOCK, PYTHON, commit, git


def names(release):
    with tarfile.open(release["archive"]) as archive:
        return set(archive.getnames())


def test_check_mode_writes_no_archive(app, pack):
    release = pack(folder=app, dry_run=True)
    assert release["changed"]
    assert not Path(release["archive"]).exists()


def test_the_same_content_makes_the_same_archive(app, pack, tmp_path):
    one = pack(folder=app)
    copy = shutil.copytree(app, tmp_path / "copy", copy_function=shutil.copy)
    (copy / "shop/web.py").chmod(0o600)
    os.utime(copy / "shop/web.py", (0, 0))
    two = pack(folder=copy, cache=tmp_path / "other")
    assert one["changed"]
    assert two["changed"]
    assert one["id"] == two["id"]
    assert Path(one["archive"]).read_bytes() == Path(two["archive"]).read_bytes()
    assert not pack(folder=app)["changed"]


@pytest.mark.parametrize(
    "settings",
    [
        {"commands": ["true"]},
        {"install_project": True},
        {"hashed": False},
        {"links": {"uploads": "/srv/shop/shared/uploads"}},
        {"pythons": {"site": PYTHON | {"version": "3.12.1"}}},
        {"pythons": {"site": PYTHON | {"machine": "aarch64"}}},
        {"pythons": {"site": PYTHON | {"executable": "/opt/python3.13/bin/python3"}}},
    ],
)
def test_the_release_name_depends_on_all_inputs(app, pack, settings):
    one = pack(folder=app, pythons={"a": PYTHON, "b": PYTHON | {"version": "3.13.7"}})["id"]
    assert pack(folder=app)["id"] == one
    assert pack(folder=app, **settings)["id"] != one


def test_code_names_the_release_and_the_lock_the_environment(app, pack):
    before = pack(folder=app)
    (app / "shop/web.py").write_text("app = 2\n")
    code = pack(folder=app)
    (app / "requirements.lock").write_text(f"# a word\n{LOCK}")
    assert pack(folder=app)["lock_hash"] == before["lock_hash"]
    (app / "requirements.lock").write_text(LOCK.replace("00", "01"))
    lock = pack(folder=app)
    assert len({before["id"], code["id"], lock["id"]}) == 3
    assert before["lock_hash"] == code["lock_hash"] != lock["lock_hash"]


def test_file_dates_depend_on_their_content(app, pack):
    """Nginx builds its ETag from date and size, so files of equal size need different dates."""

    def date(release):
        with tarfile.open(release["archive"]) as archive:
            return archive.getmember("shop/static/site.css").mtime

    one = pack(folder=app)
    (app / "shop/web.py").write_text("app = 2\n")
    two = pack(folder=app)
    (app / "shop/static/site.css").write_text("b {}\n")
    assert date(one) == date(two) != date(pack(folder=app))


def test_a_release_contains_its_name_and_links_to_shared_folders(app, pack):
    (app / "var/uploads").mkdir(parents=True)
    (app / "var/uploads/old.png").write_text("")
    links = {"var/uploads": "/srv/shop/shared/var/uploads", "media": "/srv/shop/shared/media"}
    release = pack(folder=app, links=links)
    with tarfile.open(release["archive"]) as archive:
        environment = archive.extractfile(".release.env").read().decode()
        assert environment == f'APP_RELEASE="{release["id"]}"\n'
        assert {link: archive.getmember(link).linkname for link in links} == links
        assert {(member.uid, member.uname) for member in archive} == {(0, "")}
    assert "var/uploads/old.png" not in names(release)


def test_only_the_newest_archives_are_kept(app, pack, tmp_path):
    for number in range(4):
        (app / "shop/web.py").write_text(f"app = {number}\n")
        last = pack(folder=app, keep=2)
    kept = list((tmp_path / "cache").glob("*.tar.gz"))
    assert len(kept) == 2
    assert Path(last["archive"]) in kept
    assert len(list((tmp_path / "cache").glob("*.lock"))) == 2
    assert not list((tmp_path / "cache").glob(".work-*"))


def test_a_release_built_on_a_host_is_packed_when_fetched(app, pack, tmp_path):
    (app / "uploads").mkdir()
    (app / "uploads/old.png").write_text("")
    settings = {"commands": ["make"], "links": {"uploads": "/srv/shop/shared/uploads"}}
    release = pack(folder=app, **settings)
    assert not release["built"]
    assert not Path(release["archive"]).exists()
    host, built = tmp_path / "host", tmp_path / f"cache/.{release['id']}.built.tar.gz"
    shutil.unpack_archive(release["source"], host, "gztar")
    assert (host / "uploads/old.png").exists()
    (host / "shop/built.js").write_text("built")
    (host / "node_modules").mkdir()
    (host / "node_modules/left.js").write_text("")
    (host / "shop/users").symlink_to("/etc/passwd")
    for _ in range(2):
        with tarfile.open(built, "w:gz") as archive:
            archive.add(host, ".")
        if (host / "shop/users").is_symlink():
            with pytest.raises(ValidationError, match="app_build_commands: the link shop/users"):
                repack(release, settings["links"])
            (host / "shop/users").unlink()
    repack(release, settings["links"])
    assert {"shop/built.js", "shop/web.py", ".release.env", "uploads"} <= names(release)
    assert not names(release) & {"uploads/old.png", "node_modules/left.js"}
    assert not Path(release["source"]).exists()
    assert not built.exists()
    again = pack(folder=app, **settings)
    assert (again["id"], again["built"], again["changed"]) == (release["id"], True, False)


def test_an_installed_app_can_be_imported_and_has_a_version(app, pack):
    def variables(**settings):
        return pack(git=app, install_project=True, **settings)["build_environment"]

    commit(app)
    assert variables() == {}
    git(app, "tag", "v1.2")
    release = pack(git=app, install_project=True)
    assert release["environment"] == {
        "APP_RELEASE": release["id"],
        "PYTHONPATH": f"/srv/shop/releases/{release['id']}/.site-packages",
    }
    assert release["build_environment"] == {"SETUPTOOLS_SCM_PRETEND_VERSION": "1.2"}
    (app / "shop/web.py").write_text("app = 2\n")
    last = commit(app)
    version = variables()["SETUPTOOLS_SCM_PRETEND_VERSION"]
    assert version.startswith(f"1.2.post1.dev1+g{last[:7]}")
    own = {"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_SHOP": "7"}
    assert variables(environment=own) == own
    git(app, "tag", "latest")
    assert variables() == {}


FOUND = {"found": {"3.10.1": "/usr/bin/python3.10", "3.12.4": "/opt/a/bin/python3.12"}}


@pytest.mark.parametrize(
    ("python", "message", "example"),
    [
        (
            FOUND | {"version": "3.10.1"},
            r'python3: is 3.10.1 on b, but the app has requires-python = ">=3.11"; the host has',
            "python3.12",
        ),
        (
            {"version": "3.10", "machine": "x"},
            r'3.10 on b, .* requires-python = ">=3.11"\.$',
            '"3.11"',
        ),
        (
            FOUND | {"version": "", "reason": "is not there"},
            r"python3: is not there on b, which has python3.10 \(3.10.1\), python3.12",
            "python3.12",
        ),
    ],
)
def test_an_unsupported_or_missing_python_is_rejected(app, pack, python, message, example):
    """Python is checked before requirements are resolved, so uv is not called."""
    (app / "requirements.lock").write_text("flask\n")
    with pytest.raises(ValidationError, match=message) as refusal:
        pack(folder=app, pythons={"a": PYTHON, "b": python}, uv="/nowhere")
    assert refusal.value.example == f"app_python: {example}"


def test_a_python_that_is_not_installed_yet_passes_the_early_check(app, pack):
    assert pack(folder=app, pythons={"a": {"version": ""}}, dry_run=True)["changed"]


def test_an_error_names_the_setting_and_the_reason(app, pack):
    with pytest.raises(ValidationError) as refusal:
        pack(folder=app / "nowhere")
    assert refusal.value.advice("site/main.yml") == (
        f"app_source_folder: {app}/nowhere is not a folder on the controller. Set it in "
        'site/main.yml, for example: app_source_folder: "{{ inventory_dir }}/../../shop"'
    )
