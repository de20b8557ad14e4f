"""Folders become the app's, unless they are somebody else's."""

import os
import pwd

import pytest

from flaskstack.errors import RefusedError
from flaskstack.folders import make

NOBODY = pwd.getpwnam("nobody")
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives folders to others")


@pytest.fixture
def folder(tmp_path):
    """Return a function that has folders made for an app in `app`, and returns the owner of one."""

    def folder(name):
        path = tmp_path / name
        wanted = {"folders": [str(path)], "user": "nobody", "root": str(tmp_path / "app")}
        changed = make(wanted)["changed"]
        assert not make(wanted)["changed"]
        return path.stat().st_uid if changed else None

    return folder


@pytest.mark.parametrize("name", ["app/shared/exports", "spool/shop"])
def test_one_that_is_new(tmp_path, folder, name):
    assert folder(name) == NOBODY.pw_uid
    assert (tmp_path / name).parent.stat().st_uid == 0


def test_one_that_is_the_apps_already(tmp_path, folder):
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", NOBODY.pw_uid, NOBODY.pw_gid)
    (tmp_path / "data").chmod(0o750)
    (tmp_path / "data/file").touch()
    assert folder("data") is None


@pytest.mark.parametrize("name", ["disk/lost+found", "app/shared/a/b"])
def test_one_that_holds_nothing_of_others(tmp_path, folder, name):
    """A disk that was just mounted, or what was made above another of the app's."""
    (tmp_path / name).mkdir(parents=True)
    assert folder(name.rpartition("/")[0]) == NOBODY.pw_uid


@pytest.mark.parametrize("owner", [0, 1])
def test_one_that_is_somebody_elses(tmp_path, folder, owner):
    other = tmp_path / "other"
    (other / "shared").mkdir(parents=True)
    os.chown(other, owner, owner)
    mode = other.stat().st_mode
    with pytest.raises(RefusedError, match=r"other .*(root's and not empty|another user).*Nothing"):
        folder("other")
    assert (other.stat().st_uid, other.stat().st_mode) == (owner, mode)
