"""Resolve an app's requirements to one complete lock."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from flaskstack.controller.build import refuse_unhashed
from flaskstack.errors import ValidationError
from helpers.builder import LOCK, commit
from helpers.package_index import list_files

HASH = f"--hash=sha256:{'0' * 64}"
PROJECT = """[project]
name = "shop"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["flask<3.1"]
[project.optional-dependencies]
site = ["gunicorn<28"]
"""


@pytest.fixture
def lock(app, pack, index):
    """Return a function that returns the lock of an app with these files."""

    def lock(files=None, **settings):
        for name, text in (files or {}).items():
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        names = [name for name in files or {} if "/" not in name and "constraint" not in name]
        return pack.lock(
            **({"requirements": names, "folder": app, "index_url": index.url} | settings)
        )

    return lock


def test_a_complete_lock_is_used_unchanged_without_an_index(app, pack):
    release = pack(folder=app, uv="/nowhere", index_url="https://nowhere.invalid")
    assert Path(release["lock"]).read_text() == "gunicorn==27.0.0 --hash=sha256:00\n"
    assert (release["complete"], release["notice"]) == (False, "")
    assert release["lock_name"] == "requirements.txt"


def test_unpinned_requirements_are_resolved_with_hashes_and_reported(app, pack, index):
    digest = index.add("packaging", "2.0")
    (app / "requirements.txt").write_text("gunicorn<28\n")
    release = pack(folder=app, requirements=["requirements.txt"], index_url=index.url)
    assert f"packaging==2.0 --hash=sha256:{digest}\n" in Path(release["lock"]).read_text()
    assert release["notice"].startswith("Not locked: requirements.txt.")
    assert release["complete"]


def test_requirements_files_are_read_like_pip_reads_them(lock):
    files = {
        "requirements.txt": "-r sub/base.txt\n--constraint=constraints.txt\ngunicorn\n",
        "sub/base.txt": "flask  # the framework\n-c more-constraints.txt\n",
        "sub/more-constraints.txt": "jinja<3.1\n",
        "constraints.txt": "gunicorn<28\n",
        "more.txt": "flask<3.1\r\n".encode("utf-16"),
    }
    found = lock(files)
    assert found == ["flask==3.0", "gunicorn==27.0.0", "jinja==3.0", "packaging==2.0"]
    files["sub/base.txt"] = "gunicorn\n"
    assert lock(files) != found
    with pytest.raises(ValidationError, match=r"save requirements.txt in UTF-8"):
        lock({"requirements.txt": "gunicorn # Größe\n".encode("latin-1")})


@pytest.mark.parametrize(
    ("line", "reason", "example"),
    [
        ("-r ../secret.txt", "which is not a file of the app's source", "app_extra_requirements: "),
        ("-e .", "which hosts do not have", "app_install_project: true"),
        ("x @ git+file:///srv/x", "which hosts do not have", "app_install_project: true"),
        ("no-such-thing", "no-such-thing was not found", "app_index_url: "),
        ("packaging<1", r"(?s)Python 3\.13\.5\. .*packaging<1", "app_constraints: "),
    ],
)
def test_unavailable_packages_are_reported(lock, tmp_path, line, reason, example):
    (tmp_path / "secret.txt").write_text("packaging\n")
    with pytest.raises(ValidationError, match=reason) as refusal:
        lock({"requirements.txt": f"gunicorn\n{line}\n"})
    assert refusal.value.example.startswith(example)
    assert str(tmp_path / "cache") not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("poetry.lock", "", "poetry.lock is not supported. .*uvx migrate-to-uv"),
        ("pyproject.toml", "[tool.poetry]\n", "format of Poetry.* `poetry export"),
    ],
)
def test_unsupported_files_are_rejected_with_the_next_step(lock, name, text, message):
    with pytest.raises(ValidationError, match=message):
        lock({name: text})


def test_unchanged_requirements_are_not_resolved_again(lock, index, app):
    before = lock({"requirements.txt": "gunicorn\n"})
    index.add("gunicorn", "29.0.0")
    (app / "shop/web.py").write_text("app = 2\n")
    assert lock({"requirements.txt": "gunicorn\n"}, uv="/nowhere") == before
    with_login = index.url.replace("://", "://me:t0ken@")
    assert lock({"requirements.txt": "gunicorn\n"}, index_url=with_login) == before
    assert lock({"requirements.txt": "# a word\ngunicorn\n"}) != before


def test_extra_requirements_respect_the_pins_of_the_app(lock, index):
    """This also holds for a lock with packages that only a build could resolve."""
    locked = f"packaging==1.0 {HASH}\nbuilt==1.0 {HASH}\n"
    assert lock({"requirements.lock": locked}, extra_requirements=["gunicorn<28"]) == [
        *("packaging==1.0", "built==1.0", "gunicorn==27.0.0")
    ]
    with pytest.raises(
        ValidationError, match=r"(?s)app_extra_requirements.*packaging>=2"
    ) as refusal:
        lock({"requirements.lock": locked}, extra_requirements=["gunicorn==28.0.0"])
    assert refusal.value.example.startswith("app_constraints: ")


def test_pins_of_the_inventory_override_those_of_the_app(lock, app, pack, index):
    """Extras are kept, and locked packages keep their hashes regardless of the index."""
    files = {
        "requirements.txt": "gunicorn==27.0.0 " + HASH + "\nflask[async]==3.1\npackaging==2.0\n"
    }
    given = "packaging==1.0  # not yet\nflask==3.0\nblinker==1.0\n"
    assert lock(files, pins=given) == [
        *("asgiref==1.0", "flask==3.0", "gunicorn==27.0.0", "jinja==3.1", "packaging==1.0")
    ]
    release = pack(folder=app, requirements=list(files), index_url=index.url, pins=given)
    hashes = dict(re.findall(r"(\w+)==\S+ .*--hash=(\S+)", Path(release["lock"]).read_text()))
    assert hashes["gunicorn"] == f"sha256:{'0' * 64}" != hashes["packaging"]


def test_a_supported_gunicorn_version_is_required(lock, index):
    with pytest.raises(ValidationError, match=r"not in requirements\.txt") as refusal:
        lock({"requirements.txt": "flask\n"}, extra_requirements=["jinja"])
    assert refusal.value.example == 'app_extra_requirements: ["jinja", "gunicorn"]'
    old = {"requirements.txt": f"gunicorn==20.0.4 {HASH}\n"}
    with pytest.raises(ValidationError, match=r"gunicorn 20\.0\.4, .* gunicorn 22 or newer"):
        lock(old)
    assert "gunicorn==28.0.0" in lock(old, pins="gunicorn>=22")


def test_the_index_password_is_not_shown(lock, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ValidationError) as refusal:
        lock({"requirements.txt": "gunicorn\n"}, index_url="https://me:s3cret@127.0.0.1:9/simple")
    assert "s3cret" not in str(refusal.value)
    assert "app_index_url" in refusal.value.example


def test_markers_are_evaluated_for_the_hosts(lock):
    files = {"requirements.txt": "gunicorn==27.0.0\njinja ; python_version < '3.12'\n"}
    old, new = ({"version": version, "machine": "aarch64"} for version in ("3.11.2", "3.13.5"))
    assert "jinja==3.1" not in lock(files, pythons={"a": new})
    assert "jinja==3.1" in lock(files, pythons={"a": old})
    both = lock(files, pythons={"a": new, "b": old})
    assert [line for line in both if line.startswith("jinja==3.1 ; python_full_version < '3.12'")]


def test_requirements_are_read_from_a_project_file(lock):
    with pytest.raises(ValidationError, match=r"not in pyproject\.toml"):
        lock({"pyproject.toml": PROJECT})
    found = lock({"pyproject.toml": PROJECT}, extras=["site"])
    assert found == ["flask==3.0", "gunicorn==27.0.0", "jinja==3.1", "packaging==2.0"]


def run_uv(pack, index, app, *arguments):
    command = [pack.settings["uv"], *arguments, "--quiet", f"--default-index={index.url}"]
    subprocess.run(command, cwd=app, check=True)


def test_a_uv_lock_is_used_unchanged(app, pack, index, lock, tmp_path):
    """No code of the app runs, not even an interpreter that it contains."""
    (app / "pyproject.toml").write_text(PROJECT + '[dependency-groups]\ndev = ["asgiref"]\n')
    run_uv(pack, index, app, "lock")
    index.add("flask", "3.0.5")
    trace = tmp_path / "trace"
    (app / ".venv/bin").mkdir(parents=True)
    (app / ".venv/bin/python").write_text(f"#!/bin/sh\ntouch {trace}\n")
    (app / ".venv/bin/python").chmod(0o755)
    (app / ".venv/pyvenv.cfg").write_text("version_info = 3.11.2\n")
    commit(app)
    source = {"git": app, "folder": "", "requirements": ["uv.lock"]}
    found = lock(**source, extras=["site"], index_url="")
    assert found == ["flask==3.0", "gunicorn==27.0.0", "jinja==3.1", "packaging==2.0"]
    release = pack(**source, extras=["site"])
    assert (release["complete"], release["notice"]) == (True, "")
    assert lock(**source, extra_requirements=["gunicorn"]) == [
        *("flask==3.0", "jinja==3.1", "gunicorn==28.0.0", "packaging==2.0")
    ]
    assert not trace.exists()


def test_a_workspace_is_shipped_completely(app, pack, index, lock):
    source = "[tool.uv.sources]\nlib = { workspace = true }\n"
    workspace = '[tool.uv.workspace]\nmembers = ["packages/*"]\n'
    files = {
        "pyproject.toml": workspace,
        "packages/web/pyproject.toml": PROJECT.replace("flask<3.1", 'lib", "gunicorn') + source,
        "packages/lib/pyproject.toml": PROJECT.replace("shop", "lib"),
    }
    for name, text in files.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    run_uv(pack, index, app, "lock")
    release = pack(folder=app, requirements=["uv.lock"])
    assert "lib, shop are deployed but not installed" in release["notice"]
    assert "flask==3.0" in Path(release["lock"]).read_text()
    with pytest.raises(ValidationError, match=r"no file uv.lock.*app_source_subfolder empty"):
        pack(folder=app, requirements=["uv.lock"], subfolder="packages/web")


def test_a_lock_in_the_standard_format_is_used_unchanged(app, pack, lock, index):
    (app / "in.txt").write_text("gunicorn<28\njinja ; python_version < '3.12'\n")
    arguments = ("pip", "compile", "in.txt", "--universal", "--output-file=pylock.toml")
    run_uv(pack, index, app, *arguments)
    release = pack(folder=app, requirements=["pylock.toml"], uv="/nowhere")
    assert Path(release["lock"]).read_bytes() == (app / "pylock.toml").read_bytes()
    assert (release["lock_name"], release["complete"]) == ("pylock.toml", True)
    more = lock(requirements=["pylock.toml"], extra_requirements=["flask"])
    assert more == [
        *("gunicorn==27.0.0", 'jinja==3.1 ; python_full_version < "3.12"', "packaging==2.0"),
        "flask==3.1",
    ]
    with (app / "pylock.toml").open("a") as file:
        file.write('[[packages]]\nname = "lib"\ndirectory = { path = "lib" }\n')
    with pytest.raises(ValidationError, match="which hosts do not have"):
        pack(folder=app, requirements=["pylock.toml"])


def test_missing_hashes_are_rejected_unless_allowed(lock, app, pack, index, tmp_path, monkeypatch):
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/pyproject.toml").write_text('[project]\nname = "tool"\nversion = "1"\n')
    url = f"git+file://{tmp_path}/tool@{commit(tmp_path / 'tool')}"
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    monkeypatch.setattr("flaskstack.controller.requirements.LOCAL", re.compile("!"))
    (app / "requirements.txt").write_text(f"gunicorn\n-e {url}#egg=tool\n")
    build = {"folder": app, "requirements": ["requirements.txt"], "index_url": index.url}
    with pytest.raises(ValidationError, match=r"tool @ git\+file.* has no hash") as refusal:
        pack(**build)
    assert refusal.value.example == "app_requirements_hashed: false"
    release = pack(**build, hashed=False)
    assert [line.split(" ")[0] for line in release["unhashed"]] == ["tool"]
    assert "gunicorn==28.0.0 --hash" in Path(release["lock"]).read_text()
    with pytest.raises(ValidationError, match="needs an SSH key"):
        refuse_unhashed(["tool @ git+ssh://git@example.com/tool@v1"], hashed=False)


@pytest.mark.parametrize("there", ["dev-requirements.txt", "pyproject.toml"])
def test_the_error_for_a_missing_file_names_the_existing_ones(app, pack, there):
    (app / "requirements.lock").unlink()
    (app / there).touch()
    with pytest.raises(ValidationError, match=f"no file requirements.txt; it has .*{there}"):
        pack(folder=app, requirements=["requirements.txt"])


def test_index_options_of_the_app_reach_the_host(lock, app, index):
    found = lock({"requirements.txt": f"--extra-index-url {index.url}\ngunicorn\n"})
    assert found[0] == f"--extra-index-url {index.url}"


def add_source(index, name, code):
    """Add a package that must be built to get its requirements."""
    folder = index.folder / name
    folder.mkdir(parents=True)
    backend = "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['.']\n"
    parts = {"pyproject.toml": backend, "b.py": code, "PKG-INFO": f"Name: {name}\nVersion: 1.0\n"}
    for part, text in parts.items():
        (folder / part).write_text(text)
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for part in parts:
            archive.add(folder / part, f"{name}-1.0/{part}")
    return list_files(folder)[f"{name}-1.0.tar.gz"]


def test_nothing_is_built_on_the_controller(lock, index, pack, app, tmp_path):
    trace = tmp_path / "trace"
    add_source(index, "evil", f"open({str(trace)!r}, 'w')")
    dynamic = PROJECT.replace('dependencies = ["flask<3.1"]', 'dynamic = ["dependencies"]')
    dynamic += (index.folder / "evil/pyproject.toml").read_text()
    (app / "b.py").write_bytes((index.folder / "evil/b.py").read_bytes())
    for files in ({"requirements.txt": "gunicorn\nevil\n"}, {"pyproject.toml": dynamic}):
        with pytest.raises(
            ValidationError, match=r"wheel for Python 3[.]13.*app_python"
        ) as refusal:
            lock(files)
    assert refusal.value.example == "app_requirements_builds: true"
    with suppress(ValidationError):  # the package is not a working build backend
        lock({"requirements.txt": "gunicorn\nevil\n"}, builds=True)
    assert trace.exists()


def test_only_the_newest_locks_are_kept(lock, app):
    for number in range(22):
        lock({"requirements.lock": LOCK.replace("00", f"{number:02}")})
    assert len(list((app.parent / "cache/locks").glob("*.json"))) == 20
    assert json.loads(next((app.parent / "cache/locks").glob("*.json")).read_text())["text"]
