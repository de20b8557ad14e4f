"""Files of a host, written in one call."""

from __future__ import annotations

import grp
import os

from flaskstack.host_files import write_files


def call(tmp_path, check=False, **texts):
    mine = grp.getgrgid(os.getgid()).gr_name
    paths = {str(tmp_path / name): text for name, text in texts.items()}
    return write_files(
        {
            "files": paths,
            "modes": {str(tmp_path / "secret"): "0400"},
            "groups": dict.fromkeys(paths, mine),
            "absent": [str(tmp_path / "old"), str(tmp_path / "never")],
            "check": check,
        }
    )


def test_files_are_written_once(tmp_path):
    (tmp_path / "old").write_text("")
    expected = {"changed": True, "written": [f"{tmp_path}/secret"], "removed": [f"{tmp_path}/old"]}
    assert call(tmp_path, check=True, secret="a") == expected
    assert os.listdir(tmp_path) == ["old"]
    assert call(tmp_path, secret="a") == expected
    assert os.listdir(tmp_path) == ["secret"]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o400
    assert call(tmp_path, secret="a") == {"changed": False, "written": [], "removed": []}


def test_changed_text_mode_or_missing_folder_is_a_change(tmp_path):
    call(tmp_path, **{"new/folder/plain": "a"})
    path = tmp_path / "new/folder/plain"
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    assert call(tmp_path, **{"new/folder/plain": "a"})["written"] == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o644
    assert call(tmp_path, **{"new/folder/plain": "b"})["changed"]
    assert path.read_text() == "b"


def test_group_of_a_missing_package_is_ignored_in_check_mode(tmp_path):
    params = {"files": {f"{tmp_path}/a": "x"}, "groups": {f"{tmp_path}/a": "no-such-group"}}
    assert write_files(params | {"check": True})["changed"]
