"""A release is named after what makes it, and built the same anywhere."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from releasing import LOCK, ROLE, RefusedError, load

pack_release = load("pack_release", ROLE / "library/pack_release.py")


def names(release):
    with tarfile.open(release["archive"]) as archive:
        return set(archive.getnames())


def test_looking_writes_no_archive(app, build):
    release = build(folder=app)
    assert release["changed"]
    assert not Path(release["archive"]).exists()
    assert release["requires_python"] == ">=3.11"


def test_the_same_content_is_the_same_archive(app, pack, tmp_path):
    one = pack(folder=app)
    copy = shutil.copytree(app, tmp_path / "copy", copy_function=shutil.copy)
    (copy / "shop/web.py").chmod(0o600)
    os.utime(copy / "shop/web.py", (0, 0))
    two = pack(folder=copy, cache="other")
    assert one["changed"]
    assert two["changed"]
    assert one["id"] == two["id"]
    assert Path(one["archive"]).read_bytes() == Path(two["archive"]).read_bytes()


def test_a_second_build_does_nothing(app, pack):
    pack(folder=app)
    assert not pack(folder=app)["changed"]


@pytest.mark.parametrize(
    "settings",
    [
        {"commands": ["true"]},
        {"install_project": True},
        {"links": {"uploads": "/srv/shop/shared/uploads"}},
    ],
)
def test_whatever_makes_the_release_names_it(app, build, settings):
    assert build(folder=app)["id"] != build(folder=app, **settings)["id"]


def test_code_names_the_release_and_the_lock_the_environment(app, build):
    before = build(folder=app)
    (app / "shop/web.py").write_text("app = 2\n")
    code = build(folder=app)
    (app / "requirements.lock").write_text(f"# a word\n{LOCK}")
    assert build(folder=app)["lock_hash"] == before["lock_hash"]
    (app / "requirements.lock").write_text(LOCK.replace("00", "01"))
    lock = build(folder=app)
    assert len({before["id"], code["id"], lock["id"]}) == 3
    assert before["lock_hash"] == code["lock_hash"] != lock["lock_hash"]


def test_files_have_dates_of_their_content(app, pack):
    """Nginx makes its ETag of date and size: for another content of that size, it needs another."""

    def date(release):
        with tarfile.open(release["archive"]) as archive:
            return archive.getmember("shop/static/site.css").mtime

    one = pack(folder=app)
    (app / "shop/web.py").write_text("app = 2\n")
    two = pack(folder=app)
    (app / "shop/static/site.css").write_text("b {}\n")
    three = pack(folder=app)
    assert date(one) == date(two) != date(three)


def test_a_release_knows_itself_and_its_shared_folders(app, pack):
    (app / "var/uploads").mkdir(parents=True)
    (app / "var/uploads/old.png").write_text("")
    links = {"var/uploads": "/srv/shop/shared/var/uploads", "media": "/srv/shop/shared/media"}
    release = pack(folder=app, links=links)
    with tarfile.open(release["archive"]) as archive:
        assert (
            archive.extractfile(".release.env").read().decode()
            == f'APP_RELEASE="{release["id"]}"\n'
        )
        assert archive.getmember("var/uploads").linkname == "/srv/shop/shared/var/uploads"
        assert archive.getmember("media").linkname == "/srv/shop/shared/media"
        assert {(member.uid, member.uname) for member in archive} == {(0, "")}
    assert "var/uploads/old.png" not in names(release)


def test_only_the_last_archives_are_kept(app, pack, tmp_path):
    for number in range(4):
        (app / "shop/web.py").write_text(f"app = {number}\n")
        last = pack(folder=app, keep=2)
    kept = list((tmp_path / "cache").glob("*.tar.gz"))
    assert len(kept) == 2
    assert Path(last["archive"]) in kept
    assert len(list((tmp_path / "cache").glob("*.lock"))) == 2
    assert not list((tmp_path / "cache").glob(".work-*"))


def test_what_is_built_on_a_host_is_packed_when_it_comes_back(app, pack, tmp_path):
    (app / "uploads").mkdir()
    (app / "uploads/old.png").write_text("")
    settings = {"commands": ["make"], "links": {"uploads": "/srv/shop/shared/uploads"}}
    release = pack(folder=app, **settings)
    assert not release["built"]
    assert not Path(release["archive"]).exists()
    with tarfile.open(release["source"]) as archive:
        assert "uploads/old.png" in archive.getnames()
        assert "uploads" in archive.getnames()
    shutil.unpack_archive(release["source"], tmp_path / "host", "gztar")
    (tmp_path / "host/shop/built.js").write_text("built")
    (tmp_path / "host/node_modules").mkdir()
    (tmp_path / "host/node_modules/left.js").write_text("")
    with tarfile.open(tmp_path / "built.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "host", ".")
    given = {name: release[name] for name in ("archive", "source", "environment")}
    pack_release.repack(
        given | {"built": str(tmp_path / "built.tar.gz"), "links": settings["links"]}
    )
    assert {"shop/built.js", "shop/web.py", ".release.env", "uploads"} <= names(release)
    assert not names(release) & {"uploads/old.png", "node_modules/left.js"}
    assert not Path(release["source"]).exists()
    again = pack(folder=app, **settings)
    assert (again["id"], again["built"], again["changed"]) == (release["id"], True, False)


def test_a_link_that_a_build_made_to_outside_is_refused(app, pack, tmp_path):
    release = pack(folder=app, commands=["ln -s /etc/passwd shop/users"])
    (app / "shop/users").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "built.tar.gz", "w:gz") as archive:
        archive.add(app, ".")
    given = {name: release[name] for name in ("archive", "source", "environment")}
    with pytest.raises(RefusedError, match="link shop/users points outside"):
        pack_release.repack(given | {"built": str(tmp_path / "built.tar.gz"), "links": {}})
    assert not Path(release["archive"]).exists()


def test_what_is_built_on_a_host_depends_on_its_python(app, build):
    def built(version, **settings):
        pythons = [{"version": version, "machine": "x86_64"}]
        return build(folder=app, pythons=pythons, **settings)["id"]

    assert built("3.13.5") == built("3.12.1")
    assert built("3.13.5", commands=["make"]) == built("3.13.7", commands=["make"])
    assert built("3.13.5", commands=["make"]) != built("3.12.1", commands=["make"])


def test_an_installed_app_is_found_by_python(app, build):
    release = build(folder=app, install_project=True)
    assert release["environment"] == {
        "APP_RELEASE": release["id"],
        "PYTHONPATH": f"/srv/shop/releases/{release['id']}/.site-packages",
    }


def test_nothing_is_resolved_for_a_python_that_the_app_does_not_run_on(app, pack):
    (app / "requirements.lock").write_text("flask\n")
    pythons = [
        {"version": "3.13.5", "machine": "x86_64"},
        {"version": "3.10.1", "machine": "x86_64"},
    ]
    release = pack(folder=app, pythons=pythons, uv="/nowhere")
    assert (release["fits"], release["requires_python"]) == (False, ">=3.11")


def test_a_refusal_says_where_and_what(app, build):
    with pytest.raises(RefusedError) as refusal:
        build(folder=app / "nowhere")
    assert refusal.value.advice("site/main.yml") == (
        f"app_source_folder: {app}/nowhere is not a folder on the controller. Set it in "
        'site/main.yml, for example: app_source_folder: "{{ inventory_dir }}/../../shop"'
    )
