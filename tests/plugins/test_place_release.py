"""A release comes into its folder complete, or not at all."""

from __future__ import annotations

import subprocess
import tarfile

import pytest

from releasing import ROLE, load

module = load("place_release_module", ROLE / "library/place_release.py")


class Stop(Exception):
    """How a module of Ansible's ends."""


class Host:
    """Runs commands for the module."""

    def __init__(self, params):
        self.params = params

    def run_command(self, command, check_rc=False, cwd=None):
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if check_rc and done.returncode:
            raise Stop(done.stderr)
        return done.returncode, done.stdout, done.stderr

    def exit_json(self, **result):
        self.result = result


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a function that places files as a release, and the folder of releases."""
    releases, environment = tmp_path / "releases", tmp_path / "environments/one/bin"
    releases.mkdir()
    environment.mkdir(parents=True)
    (environment / "python").symlink_to("/usr/bin/python3")

    def run(files, archive=tmp_path / "one.tar.gz"):
        source = tmp_path / "source"
        source.mkdir()
        for name, text in files.items():
            (source / name).write_text(text)
        with tarfile.open(archive, "w:gz") as packed:
            for name in files:
                packed.add(source / name, name)
        return finish(archive)

    def finish(archive):
        params = {"archive": archive, "releases": releases, "id": "new", "environment": "one"}
        monkeypatch.setattr(module, "AnsibleModule", lambda argument_spec: Host(params))
        module.main()

    run.archive = finish
    return run, releases


def test_a_release_has_its_files_bytecode_and_environment(place):
    run, releases = place
    run({"app.py": "colour = 'red'\n", "template.py": "{{ no python }}"})
    release = releases / "new"
    assert (release / "app.py").read_text() == "colour = 'red'\n"
    assert list((release / "__pycache__").glob("app.*.pyc"))
    assert (release / ".venv/bin/python").exists()
    assert [path.name for path in releases.iterdir()] == ["new"]


def test_what_a_cut_deploy_left_is_replaced(place):
    run, releases = place
    for name in ("new", ".new"):
        (releases / name).mkdir()
        (releases / name / "half.py").write_text("")
    run({"app.py": ""})
    assert sorted(path.name for path in (releases / "new").iterdir()) == [
        ".venv",
        "__pycache__",
        "app.py",
    ]
    assert not (releases / ".new").exists()


def test_an_archive_that_cannot_be_unpacked_leaves_nothing_and_takes_nothing(place, tmp_path):
    run, releases = place
    (releases / "new").mkdir()
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    with pytest.raises(Stop, match="gzip"):
        run.archive(broken)
    assert [path.name for path in releases.iterdir()] == ["new"]
