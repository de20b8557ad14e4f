"""A rotation can be interrupted anywhere and keeps every secret that a server may accept."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from helpers.imports import import_role_file

secret_files = import_role_file("secrets/library/secret_files.py")
Folder = secret_files.Folder


class CutError(Exception):
    """The rotation is interrupted here."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a directory with two secrets, one of which has a previous value."""
    for name, text in {"cache.txt": "c1", "key.txt": "k2", "key.previous.txt": "k1"}.items():
        (tmp_path / name).write_text(f"{text}\n")
    return Folder(tmp_path)


def texts(folder: Folder, name: str) -> tuple[str, str]:
    """Return a secret and its previous value."""
    previous = folder.previous(name)
    present = folder.present(name).read_text().strip()
    return present, previous.read_text().strip() if previous.exists() else ""


def rotate(folder: Folder) -> None:
    """Run the steps of the playbook before it changes the servers."""
    folder.backup(folder.query()["in_progress"] or ["cache", "key"])
    folder.rotate(["cache", "key"])


def test_secrets_become_previous_values(folder):
    rotate(folder)
    (cache, cache_previous), (key, key_previous) = texts(folder, "cache"), texts(folder, "key")
    assert (cache_previous, key_previous) == ("c1", "k2")
    assert all(re.fullmatch("[A-Za-z0-9]{40}", secret) for secret in (cache, key))
    assert cache != key
    written = [folder.state_file, folder.present("key"), folder.previous("cache")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    shown = f"{folder.query()} {folder.state_file.read_text()}"
    assert not {cache, key, "c1", "k2"} & {*re.split(r"\W+", shown)}


def test_second_run_keeps_the_new_secrets(folder):
    rotate(folder)
    made = [texts(folder, name) for name in ("cache", "key")]
    rotate(folder)
    assert [texts(folder, name) for name in ("cache", "key")] == made
    assert folder.query()["in_progress"] == ["cache", "key"]


@pytest.mark.parametrize("step", range(1, 7))
def test_next_run_completes_an_interrupted_rotation(folder, monkeypatch, step):
    """Each file is written atomically, so the run is interrupted before a write."""
    write, steps = secret_files.write, iter(range(1, 100))

    def cut(path, text):
        if next(steps) == step:
            raise CutError
        write(path, text)

    monkeypatch.setattr(secret_files, "write", cut)
    with pytest.raises(CutError):
        rotate(folder)
    assert "c1" in texts(folder, "cache")  # the servers accept this one
    assert "k2" in texts(folder, "key")
    monkeypatch.setattr(secret_files, "write", write)
    rotate(folder)
    for name, old in (("cache", "c1"), ("key", "k2")):
        present, previous = texts(folder, name)
        assert (previous, len(present)) == (old, 40)


def test_cleanup_removes_only_rejected_values(folder):
    rotate(folder)
    assert folder.cleanup(["cache"])
    assert texts(folder, "cache")[1] == ""
    assert texts(folder, "key")[1] == "k2"
    assert folder.query()["in_progress"] == []
    assert not folder.cleanup(["cache"])


def test_restore_removes_only_backups(folder):
    folder.backup(["cache", "key"])
    assert texts(folder, "cache") == ("c1", "c1")
    folder.restore(["cache", "key"])
    assert texts(folder, "cache") == ("c1", "")
    assert texts(folder, "key") == ("k2", "k1")


def test_missing_directory(tmp_path):
    assert Folder(tmp_path / "none").query() == {"present": {}, "previous": {}, "in_progress": []}
    assert not Folder(tmp_path / "none").rotate([])
