"""The app gets its folders, unless another user owns them or a link of the app leads there."""

import os
import pwd

import pytest

from flaskstack.errors import ValidationError
from flaskstack.folders import make, remove

NOBODY = pwd.getpwnam("nobody")
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives folders to others")


@pytest.fixture
def folder(tmp_path):
    """Return a function that creates folders of the app and returns the new owner, if any."""

    def folder(name):
        path = tmp_path / name
        wanted = {"folders": [str(path)], "user": "nobody", "root": str(tmp_path / "app")}
        changed = make(wanted)["changed"]
        assert not make(wanted)["changed"]
        return path.stat().st_uid if changed else None

    return folder


@pytest.mark.parametrize("name", ["app/shared/exports", "spool/shop"])
def test_a_new_folder(tmp_path, folder, name):
    assert folder(name) == NOBODY.pw_uid
    assert (tmp_path / name).parent.stat().st_uid == 0


def test_a_folder_of_the_app_is_unchanged(tmp_path, folder):
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", NOBODY.pw_uid, NOBODY.pw_gid)
    (tmp_path / "data").chmod(0o750)
    (tmp_path / "data/file").touch()
    assert folder("data") is None


@pytest.mark.parametrize("name", ["disk/lost+found", "app/shared/a/b"])
def test_an_empty_folder_becomes_the_apps(tmp_path, folder, name):
    """A freshly mounted disk, or a parent of another folder of the app."""
    (tmp_path / name).mkdir(parents=True)
    assert folder(name.rpartition("/")[0]) == NOBODY.pw_uid


@pytest.mark.parametrize("owner", [0, 1])
def test_a_folder_of_another_user_is_rejected(tmp_path, folder, owner):
    other = tmp_path / "other"
    (other / "shared").mkdir(parents=True)
    os.chown(other, owner, owner)
    mode = other.stat().st_mode
    with pytest.raises(
        ValidationError, match=r"other .*(root's and not empty|another user).*Nothing"
    ):
        folder("other")
    assert (other.stat().st_uid, other.stat().st_mode) == (owner, mode)


def test_modes_and_parent_folders(tmp_path):
    wanted = {
        "folders": [str(tmp_path / "static/uploads")],
        "user": "nobody",
        "root": str(tmp_path),
    }
    assert make(wanted | {"check": True})["changed"]
    assert not (tmp_path / "static").exists()
    assert make(wanted)["changed"]
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("static", "static/uploads")]
    assert modes == [0o751, 0o750]
    (tmp_path / "static/uploads").chmod(0o777)
    assert make(wanted)["changed"]
    assert (tmp_path / "static/uploads").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("link", ["static", "static/uploads", "static/uploads/deep"])
def test_only_links_created_by_root_are_followed(tmp_path, link):
    target, there = tmp_path / "volume", tmp_path / "shared" / link
    there.parent.mkdir(parents=True)
    target.mkdir()
    there.symlink_to(os.path.relpath(target, there.parent))
    path = tmp_path / "shared/static/uploads/deep"
    wanted = {"folders": [str(path)], "user": "nobody", "root": str(tmp_path)}
    os.chown(there.parent, NOBODY.pw_uid, -1)
    with pytest.raises(ValidationError, match=f"shared/{link} is a link, .*sudo mv"):
        make(wanted)
    assert target.stat().st_uid == 0
    assert not list(target.iterdir())
    os.chown(there.parent, 0, -1)
    assert make(wanted)["changed"]
    assert path.resolve().is_relative_to(target)
    assert path.stat().st_uid == NOBODY.pw_uid


@pytest.mark.parametrize(("what", "said"), [("loop", "is a link"), ("file", "is no folder")])
def test_an_invalid_path_is_rejected(tmp_path, what, said):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(ValidationError, match=f"{what} {said}"):
        make({"folders": [str(tmp_path / what)], "user": "nobody", "root": str(tmp_path)})


def test_removal_stops_at_links_and_at_files_of_others(tmp_path):
    """The app replaced a folder, a parent and an entry with links."""
    for name in ("theirs/deep", "data/own", "data/deep/x", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "theirs/file").touch()
    (tmp_path / "data/own/link").symlink_to(tmp_path / "theirs")
    (tmp_path / "data/above").symlink_to(tmp_path / "theirs")
    for name in ("data", "data/own", "data/deep/x"):
        os.chown(tmp_path / name, NOBODY.pw_uid, -1)
    names = ["data/own", "data/deep/x", "other", "gone/x"]
    wanted = {"user": "nobody", "folders": [str(tmp_path / name) for name in names]}
    assert remove(wanted | {"check": True})["changed"]
    assert (tmp_path / "data/own").is_dir()
    assert remove(wanted)["changed"]
    assert not remove(wanted)["changed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other", "theirs"]
    assert (tmp_path / "theirs/file").exists()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["above", "deep"]
    with pytest.raises(ValidationError, match="data/above is a link"):
        remove(wanted | {"folders": [str(tmp_path / "data/above/deep")]})
    assert (tmp_path / "theirs/deep").is_dir()
