"""A rotation of secrets in files can be cut anywhere, and loses none that a server may accept."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from helpers.imports import import_role_file

secret_files = import_role_file("secrets/library/secret_files.py")
Folder = secret_files.Folder


class CutError(Exception):
    """The controller is switched off here."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a folder with two secrets, of which one was rotated previous."""
    for name, text in {"cache.txt": "c1", "key.txt": "k2", "key.previous.txt": "k1"}.items():
        (tmp_path / name).write_text(f"{text}\n")
    return Folder(tmp_path)


def texts(folder: Folder, name: str) -> tuple[str, str]:
    """Return a secret, and the previous one."""
    previous = folder.previous(name)
    present = folder.present(name).read_text().strip()
    return present, previous.read_text().strip() if previous.exists() else ""


def rotate(folder: Folder) -> None:
    """Do what the playbook does before the servers are told."""
    folder.backup(folder.query()["in_progress"] or ["cache", "key"])
    folder.rotate(["cache", "key"])


def test_each_becomes_the_previous_one(folder):
    rotate(folder)
    (cache, cache_previous), (key, key_previous) = texts(folder, "cache"), texts(folder, "key")
    assert (cache_previous, key_previous) == ("c1", "k2")
    assert all(re.fullmatch("[A-Za-z0-9]{40}", made) for made in (cache, key))
    assert cache != key


def test_a_second_run_goes_on_with_the_same(folder):
    rotate(folder)
    made = [texts(folder, name) for name in ("cache", "key")]
    rotate(folder)
    assert [texts(folder, name) for name in ("cache", "key")] == made
    assert folder.query()["in_progress"] == ["cache", "key"]


@pytest.mark.parametrize("step", range(1, 7))
def test_wherever_it_is_cut_the_next_run_ends_it(folder, monkeypatch, step):
    """Each file is written whole or not at all; what is cut is the next one."""
    write, steps = secret_files.write, iter(range(1, 100))

    def cut(path, text):
        if next(steps) == step:
            raise CutError
        write(path, text)

    monkeypatch.setattr(secret_files, "write", cut)
    with pytest.raises(CutError):
        rotate(folder)
    assert "c1" in texts(folder, "cache")  # the servers accept it
    assert "k2" in texts(folder, "key")
    monkeypatch.setattr(secret_files, "write", write)
    rotate(folder)
    for name, old in (("cache", "c1"), ("key", "k2")):
        present, previous = texts(folder, name)
        assert (previous, len(present)) == (old, 40)


def test_the_end_forgets_what_is_refused_and_nothing_else(folder):
    rotate(folder)
    assert folder.cleanup(["cache"])
    assert texts(folder, "cache")[1] == ""
    assert texts(folder, "key")[1] == "k2"
    assert folder.query()["in_progress"] == []
    assert not folder.cleanup(["cache"])


def test_copies_are_taken_back_but_nothing_else(folder):
    folder.backup(["cache", "key"])
    assert texts(folder, "cache") == ("c1", "c1")
    folder.restore(["cache", "key"])
    assert texts(folder, "cache") == ("c1", "")
    assert texts(folder, "key") == ("k2", "k1")


def test_only_the_owner_reads_them(folder):
    rotate(folder)
    made = [folder.state_file, folder.present("key"), folder.previous("cache")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}


def test_answers_and_the_note_hold_no_secret(folder):
    rotate(folder)
    said = f"{folder.query()} {folder.state_file.read_text()}"
    for name in ("cache", "key"):
        assert not [text for text in texts(folder, name) if text in re.split(r"\W+", said)]


def test_nothing_is_there_yet(tmp_path):
    assert Folder(tmp_path / "none").query() == {"present": {}, "previous": {}, "in_progress": []}
    assert not Folder(tmp_path / "none").rotate([])


def test_no_two_are_alike():
    assert len({secret_files.new_secret() for _ in range(1000)}) == 1000
