"""uv installs an environment from the app's index, completely or not at all."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from flaskstack import environment, uv
from flaskstack.errors import ValidationError
from helpers.package_index import Index, IndexServer, list_files


def digest(path):
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def folder(sandboxed):
    """Return the path of the future environment."""
    return sandboxed / "root/environments/one"


@pytest.fixture
def install(host_wants, folder, index, monkeypatch):
    """Return a function that installs locked requirements and returns the answer or the error."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)

    def install(*lines, **options):
        params = {"environment": "one", "python": sys.executable, "complete": True, "unhashed": []}
        params |= {"lock": "\n".join(lines), "lock_name": "requirements.txt"}
        try:
            answer = environment.install(host_wants | params | options)
        except ValidationError as error:
            assert not folder.exists()
            return str(error)
        assert (folder / ".complete").exists()
        return answer["changed"]

    return install


@pytest.fixture
def locked(index):
    """Return a function that returns the lock line of a package in the index."""

    def locked(name, version):
        wheel = index.folder / name / f"{name}-{version}-py3-none-any.whl"
        return f"{name}=={version} --hash=sha256:{digest(wheel)}"

    return locked


def packages(folder):
    """Return the names of the installed packages."""
    found = folder.glob("lib/*/site-packages/*.dist-info")
    return sorted(path.name.removesuffix(".dist-info") for path in found)


def test_the_name_depends_on_lock_and_interpreter():
    names = {environment.name(lock, f"{folder}/bin/python3.13") for lock in "ab" for folder in "xy"}
    assert len(names) == 4
    assert all(re.fullmatch("[0-9a-f]{16}-python3.13", name) for name in names)


def test_a_lock_in_the_standard_format(install, index, folder):
    wheel = index.folder / "jinja/jinja-3.1-py3-none-any.whl"
    lock = 'lock-version = "1.0"\ncreated-by = "uv"\n[[packages]]\nname = "jinja"\n'
    lock += 'version = "3.1"\nwheels = [{url = "%s", hashes = {sha256 = "%s"}}]\n'
    assert install(lock % (wheel.as_uri(), digest(wheel)), lock_name="pylock.toml")
    assert packages(folder) == ["jinja-3.1"]
    shutil.rmtree(folder)
    assert "Hash mismatch" in install(lock % (wheel.as_uri(), "0" * 64), lock_name="pylock.toml")


def test_a_locked_file_is_found_in_any_index(install, index, tmp_path):
    other = Index(tmp_path / "other")
    digest = other.add("gunicorn", "29.0")
    lines = [f"--extra-index-url {index.url}", f"gunicorn==29.0 --hash=sha256:{digest}"]
    assert install(*lines, index_url=other.url) is True


def test_the_cache_size_is_limited(install, locked, folder, sandboxed, monkeypatch):
    install(locked("gunicorn", "27.0.0"))
    cache = sandboxed / "cache/shop-build/uv"
    assert list(cache.glob("archive*/*"))
    shutil.rmtree(folder)
    monkeypatch.setattr(environment, "CACHE_LIMIT", 1)
    install(locked("gunicorn", "27.0.0"))
    assert not list(cache.glob("archive*/*"))


@pytest.fixture
def server(tmp_path):
    """Return an index with a password and a certificate of its own CA."""
    with IndexServer(tmp_path / "served", "secret") as server:
        server.add_source("broken", "raise RuntimeError('no compiler here')")
        yield server
        server.shutdown()


@pytest.fixture
def settings(server):
    """Return the settings that reach the index."""
    return {"index_url": server.url, "index_ca": server.ca.read_text()}


@pytest.mark.parametrize(
    ("change", "words", "example"),
    [
        ({}, "RuntimeError: no compiler here", "app_build_packages: [build-essential"),
        ({"index_ca": ""}, "invalid peer certificate", "app_index_ca: "),
        ({"index_url": "https://me:hunter2@{}"}, "requires user:password@", "app_index_url: "),
        ({"index_url": "https://localhost:1/simple"}, "Connection refused", "app_index_url: "),
    ],
)
def test_advice_for_an_unavailable_package(
    install, server, settings, monkeypatch, change, words, example
):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    (source,) = (server.folder / "simple/broken").glob("*.gz")
    settings |= change
    settings["index_url"] = settings["index_url"].format(server.url.partition("@")[2])
    message = install(f"broken==1.0 --hash=sha256:{digest(source)}", **settings)
    assert words in message
    assert f"for example: {example}" in message
    assert "secret@" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("line", "complete", "example"),
    [
        (f"gunicorn==27.0.0 --hash=sha256:{'0' * 64}", True, "app_requirements: "),
        (f"gunicorn==99 --hash=sha256:{'0' * 64}", True, "app_index_url: "),
        ("gunicorn==27.0.0", True, "app_requirements: "),
    ],
)
def test_advice_for_an_incompatible_lock(install, line, complete, example):
    assert f"for example: {example}" in install(line, complete=complete)


def test_settings_of_the_app_override_those_of_the_host(monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://host.example")
    monkeypatch.setenv("SSL_CERT_DIR", "/etc/host")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    index = uv.Index("https://me:secret@localhost/simple", "a CA")
    shown = str(index.variables)
    assert not [word for word in ("host.example", "/etc/host", "secret") if word in shown]
    assert index.url in index.files["uv.toml"]
    assert index.files["ca.pem"] == "a CA"
    assert index.trusted == [index.url, "http://proxy.example:3128"]
    assert uv.Index("", "").url == "https://host.example"


def test_servers_named_by_a_lock_and_an_index_are_allowed(server, settings):
    page = server.folder / "simple/flask/index.html"
    page.parent.mkdir()
    page.write_text('<a href="https://files.example/a/flask.whl#sha256=0">flask</a>')
    lock = "Flask==1.0\nlib @ git+https://git.example:8443/lib"
    named = uv.Index(*settings.values()).named(lock)
    assert named == ["https://files.example", "https://git.example:8443"]


@pytest.fixture
def lock(server):
    """Return the lock of another uv version, with wheels for several machines in the index."""
    folder = server.folder / "simple/uv"
    folder.mkdir()
    for machine in ("x86_64", "aarch64", "riscv64"):
        name = f"uv-99.0-py3-none-manylinux_2_17_{machine}.manylinux2014_{machine}.whl"
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("uv-99.0.data/scripts/uv", f"#!/bin/echo\n{machine}")
    list_files(folder)
    return "\n".join(["uv==99.0", *(f"--hash=sha256:{digest(p)}" for p in folder.glob("*.whl"))])


def test_uv_is_installed_from_the_index_and_older_versions_are_removed(
    sandboxed, lock, settings, server
):
    index = uv.Index(settings["index_url"], settings["index_ca"])
    with pytest.raises(ValidationError, match="Hash mismatch"):
        uv.install(re.sub(r"sha256:\w+", "sha256:00", lock), index)
    with pytest.raises(ValidationError, match=r"it has no uv 98\.0 for"):
        uv.install(lock.replace("99.0", "98.0"), index)
    assert [path.name[:4] for path in (sandboxed / "tools").iterdir()] == ["uv-0"]
    program = uv.install(lock, index)
    shutil.rmtree(server.folder / "simple/uv")
    assert uv.install(lock, index) == program
    assert program.read_text().endswith(platform.machine())
    assert subprocess.check_output([program], text=True).strip() == str(program)
    assert [path.name for path in (sandboxed / "tools").iterdir()] == ["uv-99.0"]
