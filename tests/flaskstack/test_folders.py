"""The app gets its folders, unless others own them or the app created a link on their path."""

import os
import pwd

import pytest

from flaskstack.errors import ValidationError
from flaskstack.folders import make, remove

NOBODY = pwd.getpwnam("nobody")
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives folders to others")


@pytest.fixture
def params(tmp_path):
    """Return a function that returns the parameters for folders of an app below `app`."""

    def params(*names):
        folders = [str(tmp_path / name) for name in names]
        return {"folders": folders, "user": "nobody", "root": str(tmp_path / "app")}

    return params


@pytest.mark.parametrize(
    ("existing", "name"),
    [
        ("app", "app/shared/exports"),
        ("app", "spool/shop"),
        ("disk/lost+found", "disk"),  # a new file system
        ("app/shared/a/b", "app/shared/a"),  # the parent of another folder of the app
    ],
)
def test_a_new_or_empty_folder_is_given_to_the_app(tmp_path, params, existing, name):
    (tmp_path / existing).mkdir(parents=True)
    assert make(params(name))["changed"]
    assert not make(params(name))["changed"]
    path = tmp_path / name
    assert (path.stat().st_uid, path.parent.stat().st_uid) == (NOBODY.pw_uid, 0)


@pytest.mark.parametrize("owner", [0, 1])
def test_a_folder_of_another_user_is_rejected(tmp_path, params, owner):
    other = tmp_path / "other"
    (other / "shared").mkdir(parents=True)
    os.chown(other, owner, owner)
    mode = other.stat().st_mode
    with pytest.raises(
        ValidationError, match=r"other .*(root's and not empty|another user).*Nothing"
    ):
        make(params("other"))
    assert (other.stat().st_uid, other.stat().st_mode) == (owner, mode)


def test_modes_and_parent_folders(tmp_path, params):
    parameters = params("static/uploads")
    assert make(parameters | {"check": True})["changed"]
    assert not (tmp_path / "static").exists()
    assert make(parameters)["changed"]
    (tmp_path / "static/uploads/file").touch()  # the app's own folders may hold files
    assert not make(parameters)["changed"]
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("static", "static/uploads")]
    assert modes == [0o751, 0o750]
    (tmp_path / "static/uploads").chmod(0o777)
    assert make(parameters)["changed"]
    assert (tmp_path / "static/uploads").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("link", ["static", "static/uploads", "static/uploads/deep"])
def test_only_links_created_by_root_are_followed(tmp_path, params, link):
    target, there = tmp_path / "volume", tmp_path / "shared" / link
    there.parent.mkdir(parents=True)
    target.mkdir()
    there.symlink_to(os.path.relpath(target, there.parent))
    parameters = params("shared/static/uploads/deep")
    os.chown(there.parent, NOBODY.pw_uid, -1)
    with pytest.raises(ValidationError, match=f"shared/{link} is a link, .*sudo mv"):
        make(parameters)
    assert target.stat().st_uid == 0
    assert not list(target.iterdir())
    os.chown(there.parent, 0, -1)
    assert make(parameters)["changed"]
    path = tmp_path / "shared/static/uploads/deep"
    assert path.resolve().is_relative_to(target)
    assert path.stat().st_uid == NOBODY.pw_uid


@pytest.mark.parametrize(("name", "reason"), [("loop", "is a link"), ("file", "is not a folder")])
def test_an_invalid_path_is_rejected(tmp_path, params, name, reason):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(ValidationError, match=f"{name} {reason}"):
        make(params(name))


def test_removal_stops_at_links_and_at_files_of_others(tmp_path, params):
    """The app replaced a folder, a parent and an entry with links."""
    for name in ("theirs/deep", "data/own", "data/deep/x", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "theirs/file").touch()
    (tmp_path / "data/own/link").symlink_to(tmp_path / "theirs")
    (tmp_path / "data/above").symlink_to(tmp_path / "theirs")
    for name in ("data", "data/own", "data/deep/x"):
        os.chown(tmp_path / name, NOBODY.pw_uid, -1)
    parameters = params("data/own", "data/deep/x", "other", "missing/x")
    assert remove(parameters | {"check": True})["changed"]
    assert (tmp_path / "data/own").is_dir()
    assert remove(parameters)["changed"]
    assert not remove(parameters)["changed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other", "theirs"]
    assert (tmp_path / "theirs/file").exists()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["above", "deep"]
    with pytest.raises(ValidationError, match="data/above is a link"):
        remove(params("data/above/deep"))
    assert (tmp_path / "theirs/deep").is_dir()
