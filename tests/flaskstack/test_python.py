"""Selection of a host's Python interpreters, and errors about missing ones."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

from flaskstack import python
from flaskstack.errors import ValidationError

SYSTEM = Path("/usr/bin/python3")
VERSION = SYSTEM.resolve().name.removeprefix("python")


@pytest.mark.parametrize("name", ["python3", str(SYSTEM), VERSION])
def test_a_system_interpreter_is_found(name):
    found = python.find(name)
    assert found["executable"] == str(SYSTEM.resolve())
    assert re.fullmatch(r"3\.\d+\.\d+", found["version"])
    assert found["found"][found["version"]] == found["executable"]
    assert (found["reason"], found["machine"]) == ("", os.uname().machine)


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """Return an interpreter that other users can write to."""
    path = tmp_path / "opt/conda/bin/python3.99"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho 3.99.1\n")
    path.chmod(0o755)
    (path.parent / "python3").symlink_to(path)
    (path.parent / "python3.98").symlink_to("nowhere")
    monkeypatch.setattr(python, "FOLDERS", ("/usr/bin", f"{tmp_path}/opt/*/bin"))
    return path


def test_an_interpreter_that_others_can_replace_is_never_run(foreign, tmp_path):
    assert "3.99.1" not in python.find("python3")["found"]
    for name in ("3.99", str(foreign)):
        found = python.find(name)
        assert found["version"] == found["executable"] == ""
        assert found["reason"].startswith("can be replaced by other users")
        assert str(SYSTEM.resolve()) in found["found"].values()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("3.98", "is not there"), ("/usr/bin/python3.98", "is not there"), ("/etc/hostname", "below")],
)
def test_the_error_explains_why_an_interpreter_is_unusable(name, reason):
    assert reason in python.find(name)["reason"]


@pytest.fixture
def install(host_wants, sandboxed, monkeypatch, tmp_path):
    """Return a function that installs a build that the user configured."""
    monkeypatch.setattr(python, "PYTHONS", sandboxed / "pythons")
    monkeypatch.setattr(python, "FOLDERS", (f"{sandboxed}/pythons/*/bin",))
    monkeypatch.setattr(python, "unusable", lambda executable: "")  # as if root owned all files

    def install(archive, **options):
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        params = {"python": "3.99", "url": archive.as_uri(), "checksum": f"sha256:{digest}"}
        return python.install(host_wants | params | options)

    return install


@pytest.fixture
def archive(tmp_path):
    """Return the archive of a build of Python 3.99.1, in the usual layout."""
    program = tmp_path / "made/python/bin/python3.99"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 3.99.1\n")
    program.chmod(0o755)
    (program.parent / "python3.99-config").touch(0o755)
    return Path(shutil.make_archive(tmp_path / "python", "gztar", tmp_path / "made", "python"))


@pytest.mark.parametrize(
    ("options", "message", "example"),
    [
        ({"python": "3.9"}, r"the archive has Python 3\.99\.1, not 3\.9", 'app_python: "3.99"'),
        ({"url": "https://localhost:1/python.tar.gz"}, "cannot be downloaded", ""),
        ({"python": "python3.99"}, "is not there", "app_python: "),
    ],
)
def test_a_build_that_does_not_match_its_settings_is_rejected(
    install, archive, sandboxed, options, message, example
):
    with pytest.raises(ValidationError, match=message) as refusal:
        install(archive, **options)
    assert refusal.value.example.startswith(example)
    assert not list((sandboxed / "pythons").glob("*"))


def test_without_a_uv_build_the_error_suggests_app_python_url(install, archive, monkeypatch):
    for name in ("UV_OFFLINE", "UV_HTTP_RETRIES"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ValidationError) as refused:
        install(archive, url="", checksum="", python="3.10")
    assert "app_python: installing 3.10, which the host lacks, failed" in str(refused.value)
    assert "Without app_python" in str(refused.value)
    assert "app_python_url: https://files.example.com/cpython-3.10-" in str(refused.value)
