"""What an app asks for becomes one lock that leaves nothing open."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from releasing import LOCK, RefusedError, commit

HASH = f"--hash=sha256:{'0' * 64}"


@pytest.fixture
def lock(app, pack, index):
    """Return a function that gives the lock of an app of these files."""

    def lock(files=None, **settings):
        for name, text in (files or {}).items():
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_text(text)
        names = [name for name in files or {} if "/" not in name and "constraint" not in name]
        given = {"requirements": names, "folder": app, "index_url": index.url}
        return pack.lock(**(given | settings))

    return lock


@pytest.fixture
def hashes(pack, app, index):
    """Return a function that gives the hashes which a release is checked against."""

    def hashes(**settings):
        release = pack(folder=app, index_url=index.url, **settings)
        return re.findall(r"(\w+)==\S+ .*--hash=sha256:(\w+)", Path(release["lock"]).read_text())

    return hashes


def test_a_complete_lock_is_taken_as_it_is_without_an_index(app, pack):
    release = pack(folder=app, uv="/nowhere", index_url="https://nowhere.invalid")
    assert Path(release["lock"]).read_text() == "gunicorn==27.0.0 --hash=sha256:00\n"
    assert (release["complete"], release["notice"]) == (False, "")


def test_what_is_left_open_is_resolved_with_hashes(lock, app, index):
    digest = index.add("packaging", "2.0")
    assert lock({"requirements.txt": "gunicorn<28\n"}) == ["gunicorn==27.0.0", "packaging==2.0"]
    assert digest in next((app.parent / "cache").glob("*.lock")).read_text()


def test_what_was_not_locked_is_said(app, pack, index):
    (app / "requirements.txt").write_text("gunicorn\n")
    release = pack(folder=app, requirements=["requirements.txt"], index_url=index.url)
    assert release["notice"].startswith("requirements.txt is not locked")
    assert release["complete"]


def test_several_files_are_resolved_together(lock):
    files = {"requirements.txt": "flask\n", "more.txt": "gunicorn\nflask<3.1\n"}
    assert "flask==3.0" in lock(files)


def test_files_include_others(lock):
    files = {
        "requirements.txt": "-r sub/base.txt\n--constraint=constraints.txt\ngunicorn\n",
        "sub/base.txt": "flask  # the framework\n-c more-constraints.txt\n",
        "sub/more-constraints.txt": "jinja<3.1\n",
        "constraints.txt": "gunicorn<28\n",
    }
    assert lock(files, requirements=["requirements.txt"]) == [
        *("flask==3.1", "gunicorn==27.0.0", "jinja==3.0", "packaging==2.0")
    ]


def test_what_is_included_makes_the_lock_too(lock):
    files = {"requirements.txt": "-r sub/base.txt\n", "sub/base.txt": "gunicorn<28\n"}
    before = lock(files, requirements=["requirements.txt"])
    files["sub/base.txt"] = "gunicorn\n"
    assert lock(files, requirements=["requirements.txt"]) != before


@pytest.mark.parametrize("include", ["-r ../secret.txt", "-r nowhere.txt", "-c /etc/hostname"])
def test_what_is_outside_the_source_is_not_included(lock, include):
    with pytest.raises(RefusedError, match="which is no file of the app's source"):
        lock({"requirements.txt": f"gunicorn\n{include}\n"})


@pytest.mark.parametrize("line", ["-e .", ".", "./vendor/x.whl", "x @ file:///srv/x", "/srv/x.whl"])
def test_what_hosts_do_not_have_is_refused(lock, line):
    with pytest.raises(RefusedError, match="which hosts do not have") as refusal:
        lock({"requirements.txt": f"gunicorn\n{line}\n"})
    assert refusal.value.example == "app_install_project: true"


def test_the_same_is_not_resolved_again(lock, index, app):
    before = lock({"requirements.txt": "gunicorn\n"})
    index.add("gunicorn", "29.0.0")
    (app / "shop/web.py").write_text("app = 2\n")
    assert lock({"requirements.txt": "# a word\ngunicorn\n"}, uv="") != before
    (app / "requirements.txt").write_text("gunicorn\n")
    assert lock({"requirements.txt": "gunicorn\n"}, uv="/nowhere") == before


def test_the_inventory_adds_within_the_pins_of_the_app(lock):
    locked = f"packaging==1.0 {HASH}\n"
    assert lock({"requirements.lock": locked}, extra_requirements=["gunicorn<28"]) == [
        *("packaging==1.0", "gunicorn==27.0.0")
    ]
    with pytest.raises(RefusedError, match=r"(?s)app_extra_requirements.*packaging>=2") as refusal:
        lock({"requirements.lock": locked}, extra_requirements=["gunicorn==28.0.0"])
    assert refusal.value.example.startswith("app_constraints: ")


def test_pins_of_the_inventory_replace_those_of_the_app(lock, tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("packaging==1.0  # not yet\njinja==3.0\n")
    files = {"requirements.lock": f"gunicorn==27.0.0 {HASH}\npackaging==2.0 {HASH}\n"}
    assert lock(files, constraints=str(pins)) == ["gunicorn==27.0.0", "packaging==1.0"]


def test_a_replaced_pin_keeps_its_extras(lock, tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("flask==3.0\n")
    files = {"requirements.txt": "gunicorn\nflask[async]==3.1\n"}
    assert {"flask==3.0", "asgiref==1.0"} <= set(lock(files, constraints=str(pins)))


def test_the_lock_of_the_app_is_believed_before_the_index(lock, app, hashes, tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("packaging==1.0\n")
    (app / "requirements.lock").write_text(f"gunicorn==27.0.0 {HASH}\n")
    found = dict(hashes(constraints=str(pins)))
    assert found["gunicorn"] == "0" * 64
    assert found["packaging"] != "0" * 64


def test_gunicorn_must_be_in_it(lock):
    with pytest.raises(RefusedError, match=r"not in requirements\.txt") as refusal:
        lock({"requirements.txt": "flask\n"}, extra_requirements=["jinja"])
    assert refusal.value.example == 'app_extra_requirements: ["jinja", "gunicorn"]'


def test_what_cannot_be_had_together_is_told(lock):
    with pytest.raises(RefusedError, match=r"(?s)Python 3\.13\.5:\n.*packaging<1") as refusal:
        lock({"requirements.txt": "gunicorn\npackaging<1\n"})
    assert "app_constraints" in refusal.value.example
    assert "lock-" not in str(refusal.value)


def test_what_the_index_has_not_is_told(lock):
    with pytest.raises(RefusedError, match="no-such-thing was not found"):
        lock({"requirements.txt": "gunicorn\nno-such-thing\n"})


def test_the_password_of_an_index_is_not_shown(lock, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    url = "https://me:s3cret@127.0.0.1:9/simple"
    with pytest.raises(RefusedError) as refusal:
        lock({"requirements.txt": "gunicorn\n"}, index_url=url)
    assert "s3cret" not in str(refusal.value)
    assert "app_index_url" in refusal.value.example


def test_markers_are_those_of_the_host(lock):
    needs = "gunicorn==27.0.0\njinja ; python_version < '3.12'\n"
    python = [{"version": "3.11.2", "machine": "aarch64"}]
    assert "jinja==3.1" not in lock({"requirements.txt": needs})
    assert "jinja==3.1" in lock({"requirements.txt": needs}, pythons=python)


def test_hosts_of_several_kinds_share_a_lock(lock):
    needs = "gunicorn==27.0.0\njinja ; python_version < '3.12'\n"
    pythons = [{"version": version, "machine": "x86_64"} for version in ("3.13.5", "3.11.2")]
    found = lock({"requirements.txt": needs}, pythons=pythons)
    assert any(line.startswith("jinja==3.1 ; python_full_version < '3.12'") for line in found), (
        found
    )


PROJECT = """[project]
name = "shop"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["flask<3.1"]
[project.optional-dependencies]
site = ["gunicorn<28"]
"""


def test_a_project_says_what_it_needs(lock):
    with pytest.raises(RefusedError, match=r"not in pyproject\.toml"):
        lock({"pyproject.toml": PROJECT})
    found = lock({"pyproject.toml": PROJECT}, extras=["site"])
    assert found == ["flask==3.0", "gunicorn==27.0.0", "jinja==3.1", "packaging==2.0"]


@pytest.fixture
def project(app, index, pack):
    """Lock a project with uv."""
    (app / "pyproject.toml").write_text(PROJECT + '[dependency-groups]\ndev = ["asgiref"]\n')
    command = [pack.settings["uv"], "lock", "--quiet", f"--default-index={index.url}"]
    subprocess.run(command, cwd=app, check=True)
    return app


def test_a_lock_of_uv_is_taken_as_it_is(project, pack, index, lock):
    index.add("flask", "3.0.5")
    release = pack(folder=project, requirements=["uv.lock"], extras=["site"])
    assert (release["complete"], release["notice"]) == (True, "")
    found = lock(requirements=["uv.lock"], extras=["site"], index_url="")
    assert found == ["flask==3.0", "gunicorn==27.0.0", "jinja==3.1", "packaging==2.0"]
    with_driver = lock(requirements=["uv.lock"], extra_requirements=["gunicorn"])
    assert "flask==3.0" in with_driver
    assert "gunicorn==28.0.0" in with_driver
    assert not any(line.startswith("asgiref") for line in with_driver)


def test_a_lock_of_the_standard_format_is_read(app, pack, lock, index):
    (app / "in.txt").write_text("gunicorn<28\njinja ; python_version < '3.12'\n")
    command = [pack.settings["uv"], "pip", "compile", "in.txt", "--universal", "--quiet"]
    command += [f"--default-index={index.url}", "--output-file=pylock.toml"]
    subprocess.run(command, cwd=app, check=True)
    found = lock(requirements=["pylock.toml"], uv="/nowhere")
    assert found == [
        "gunicorn==27.0.0",
        "jinja==3.1 ; python_full_version < '3.12'",
        "packaging==2.0",
    ]


@pytest.fixture
def repository(tmp_path):
    """Return a package in a repository."""
    folder = tmp_path / "tool"
    folder.mkdir()
    backend = "import pathlib\n\n\ndef prepare_metadata_for_build_wheel(folder, config=None):\n"
    backend += "    made = pathlib.Path(folder, 'tool-1.0.dist-info')\n    made.mkdir()\n"
    text = "Metadata-Version: 2.1\\nName: tool\\nVersion: 1.0\\n"
    backend += f"    (made / 'METADATA').write_text('{text}')\n    return made.name\n"
    (folder / "backend.py").write_text(backend)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    return f"git+file://{folder}@{commit(folder)}"


def test_what_has_no_hash_is_refused_unless_allowed(lock, repository, app, pack, index):
    files = {"requirements.txt": f"gunicorn\ntool @ {repository}\n"}
    with pytest.raises(RefusedError, match=r"tool @ git\+file.* cannot be checked") as refusal:
        lock(files)
    assert refusal.value.example == "app_requirements_hashed: false"
    build = partial(pack, folder=app, requirements=["requirements.txt"], index_url=index.url)
    release = build(hashed=False)
    assert [line.split(" ")[0] for line in release["unhashed"]] == ["tool"]
    assert "gunicorn==28.0.0 --hash" in Path(release["lock"]).read_text()


@pytest.mark.parametrize("there", ["dev-requirements.txt", "pyproject.toml"])
def test_a_file_that_is_missing_is_named_with_those_that_are_there(app, build, there):
    (app / "requirements.lock").unlink()
    (app / there).touch()
    with pytest.raises(RefusedError, match=f"no file requirements.txt; it has .*{there}"):
        build(folder=app, requirements=["requirements.txt"])


def test_options_of_the_app_reach_the_host(lock, app, index):
    found = lock({"requirements.txt": f"--extra-index-url {index.url}\ngunicorn\n"})
    assert found[0] == f"--extra-index-url {index.url}"


def test_a_constraints_file_that_is_missing_is_named(build, app):
    with pytest.raises(RefusedError, match="app_constraints: /nowhere is not a file"):
        build(folder=app, constraints="/nowhere")


def test_only_so_many_locks_are_kept(lock, app):
    for number in range(22):
        lock({"requirements.lock": LOCK.replace("00", f"{number:02}")})
    assert len(list((app.parent / "cache/locks").glob("*.json"))) == 20
    assert json.loads(next((app.parent / "cache/locks").glob("*.json")).read_text())["hashed"]
