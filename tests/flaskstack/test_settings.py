"""Settings sets: written once, found by their hash, and installed as unit files."""

from __future__ import annotations

import os

import pytest

from flaskstack import files, settings
from flaskstack.settings import differences, name_of

FILES = {
    "environment": 'SET="a"\n',
    "files/conf.d/app.ini": "x",
    "gunicorn.conf.py": "workers = 1\n",
}


@pytest.fixture
def sets(host):
    """Return the settings sets of `shop` on a host without any."""
    return host.settings


def test_a_set_is_named_after_its_content(sets):
    name = sets.write(FILES, {"timeout": 3}, os.getgid())
    assert name == name_of(dict(reversed(FILES.items())))
    assert name != name_of(FILES | {"environment": 'SET="b"\n'})
    assert (sets.files(name), sets.release(name)) == (FILES, {"timeout": 3})
    assert sets.exists(name)
    assert not sets.exists("")
    assert sets.files("") == sets.release("") == {}


def test_only_the_app_can_read_a_set(sets):
    name = sets.write(FILES, {}, os.getgid())
    for folder, _, names in os.walk(sets.sets / name):
        assert os.stat(folder).st_mode & 0o777 == 0o750
        assert {os.stat(os.path.join(folder, one)).st_mode & 0o777 for one in names} <= {0o640}


def test_health_settings_change_without_a_new_set(sets):
    name = sets.write(FILES, {"timeout": 3}, -1)
    environment = sets.sets / name / "environment"
    written = environment.stat()
    assert sets.write(FILES, {"timeout": 4}, -1) == name
    assert sets.release(name) == {"timeout": 4}
    assert environment.stat() == written


def test_an_incomplete_set_does_not_exist(sets, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(settings, "write", full)
        with pytest.raises(OSError, match="No space"):
            sets.write(FILES, {}, -1)
    assert not sets.exists(name_of(FILES))
    assert sets.files(sets.write(FILES, {}, -1)) == FILES


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"environment": 'SET="b"\nNEW="=1"\n'}, ["NEW", "SET"]),
        ({"environment": ""}, ["SET"]),
        (
            {"gunicorn.conf.py": "", "units/shop.target": ""},
            ["gunicorn.conf.py", "units/shop.target"],
        ),
    ],
)
def test_differences_contain_names_but_never_values(changed, found):
    assert differences(FILES, FILES | changed) == found


def test_each_slot_has_its_own_units(host):
    first, second = host.set(), host.set("second")
    assert host.settings.assign_slot("a", first)
    assert not host.settings.assign_slot("a", first), "systemd need not read them again"
    host.settings.assign_slot("b", second)
    texts = {slot: (settings.UNITS / f"shop-web@{slot}.service").read_text() for slot in "ab"}
    assert (texts["a"][:7], texts["b"][:8]) == ("# first", "# second")
    assert [host.settings.in_slot(slot) for slot in ("a", "b", "")] == [first, second, ""]
    assert host.settings.installed("a", first) is False  # its background processes are not active
    host.settings.use(first)
    assert host.settings.installed("a", first)


def test_only_units_of_the_apps_processes_belong_to_it(host):
    for name in ("shop-worker@.service", "shop-other.service", "shop-web@a.service"):
        (settings.UNITS / name).write_text("Slice=shop-two-processes.slice\n")
    (settings.UNITS / "shop-two-worker@.service").write_text("Slice=shop-two-processes.slice\n")
    (settings.UNITS / "shop-old.service").write_text("[Service]\nSlice=shop-timers.slice\n")
    (settings.UNITS / "shop-old.timer").touch()
    assert host.settings.process_files() == {"shop-old.service", "shop-old.timer"}
    assert sorted(host.settings.use("")) == ["shop-old.service", "shop-old.timer"]
    assert not (settings.UNITS / "shop-old.timer").exists()


def test_sets_in_use_are_always_kept(host):
    names = [host.set(text) for text in ("current", "slot", "kept", "left")]
    host.settings.use(names[0])
    host.settings.assign_slot("b", names[1])
    host.settings.prune({names[2]})
    assert host.sets() == ["current", "kept", "slot"]


def test_an_incomplete_removal_is_finished(tmp_path):
    for folder in ("set", ".set.gone"):
        (tmp_path / folder / "inside").mkdir(parents=True)
    files.remove(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write(path, "old", 0o600)
    (tmp_path / ".file.new").write_text("half")
    with monkeypatch.context() as patches:
        patches.setattr(files.os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            files.write(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old", 0o600)
    files.write(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o644)
