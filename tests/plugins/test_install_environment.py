"""An environment is installed by uv, complete or not at all; what uv says is known to the role."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from index_server import IndexServer
from parts import load_part
from releasing import ROLE, Index

RefusedError = load_part("module_utils/release_refusal.py").RefusedError
host_uv = load_part("module_utils/host_uv.py")
module = load_part("library/install_environment.py")
UV = str(Path(sys.executable).with_name("uv"))
VERSION = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True).stdout
UV_LOCK = f"uv=={VERSION.split()[1]} \\\n    --hash=sha256:00\n"


class Stop(Exception):
    """How a module of Ansible's ends."""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return the folders of a host that has uv already."""
    for name in ("tools", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(host_uv, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(host_uv, "SECRETS", tmp_path / "run")
    for each in (host_uv, module):
        monkeypatch.setattr(each, "CACHE", tmp_path / "cache/uv")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_"))]:
        monkeypatch.delenv(name)
    program = tmp_path / f"tools/uv-{VERSION.split()[1]}/uv"
    program.parent.mkdir(parents=True)
    program.symlink_to(UV)
    umask = os.umask(0o022)
    yield SimpleNamespace(folder=tmp_path, program=program, environment=tmp_path / "environment")
    os.umask(umask)


@pytest.fixture
def install(host, index, monkeypatch):
    """Return a function that runs the module; it returns what that says, or raises it."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)

    def install(*lines, **options):
        wanted = {"path": str(host.environment), "python": sys.executable, "complete": True}
        wanted |= {"lock": "\n".join(lines), "unhashed": [], "uv_lock": UV_LOCK}
        wanted |= {"index_url": "", "index_ca": ""} | options

        def end(**result):
            raise Stop(result)

        played = SimpleNamespace(params=wanted, exit_json=end, fail_json=end)
        monkeypatch.setattr(module, "AnsibleModule", lambda argument_spec: played)
        with pytest.raises(Stop) as stopped:
            module.main()
        assert not list((host.folder / "run").iterdir()), "settings of the index are left"
        result = stopped.value.args[0]
        assert (host.environment / ".complete").exists() is ("msg" not in result)
        assert host.environment.exists() is ("msg" not in result)
        return result

    return install


@pytest.fixture
def locked(index):
    """Return a function that locks a package of the index."""

    def locked(name, version):
        wheel = index.folder / name / f"{name}-{version}-py3-none-any.whl"
        return f"{name}=={version} --hash=sha256:{digest(wheel)}"

    return locked


def advice(said):
    """Return what the operator is told to do about it."""
    hints = yaml.safe_load((ROLE / "vars/main/messages.yml").read_text())
    for hint in hints["__release_install_hints"]:
        if re.search(hint["sign"], said):
            return f"{hint['advice']}, for example: {hint['example']}"
    return ""


def digest(path):
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packages(environment):
    """Name what is installed in an environment."""
    return sorted(path.name for path in environment.glob("lib/*/site-packages/*.dist-info"))


def test_an_environment_holds_its_lock_and_is_made_once(host, install, locked):
    lock = [locked("gunicorn", "27.0.0"), locked("packaging", "1.0")]
    assert install(*lock, complete=False) == {"changed": True}
    assert packages(host.environment) == ["gunicorn-27.0.0.dist-info", "packaging-1.0.dist-info"]
    assert (host.environment / "requirements.lock").read_text() == "\n".join(lock)
    complete = (host.environment / ".complete").stat()
    assert install("other==1.0") == {"changed": False}
    assert (host.environment / ".complete").stat() == complete


def test_half_an_environment_is_made_anew(host, install, locked):
    (host.environment / "lib").mkdir(parents=True)
    (host.environment / "lib/half").touch()
    assert install(locked("gunicorn", "27.0.0"))["changed"]
    assert not (host.environment / "lib/half").exists()


def test_nobody_else_can_write_to_an_environment_or_read_the_cache(host, install, locked):
    install(locked("gunicorn", "27.0.0"))
    for path in [host.environment, *host.environment.rglob("*")]:
        assert path.is_symlink() or not path.stat().st_mode & 0o022, path
    assert stat.S_IMODE((host.folder / "cache/uv").stat().st_mode) == 0o700


def test_what_has_no_hash_comes_besides(host, install, locked):
    install(locked("gunicorn", "27.0.0"), unhashed=["jinja==3.1"])
    assert packages(host.environment) == ["gunicorn-27.0.0.dist-info", "jinja-3.1.dist-info"]


def test_a_locked_file_is_found_in_whichever_index_has_it(host, install, index, tmp_path):
    other = Index(tmp_path / "other")
    wanted = other.add("gunicorn", "29.0")
    lines = [f"--extra-index-url {index.url}", f"gunicorn==29.0 --hash=sha256:{wanted}"]
    assert "msg" not in install(*lines, index_url=other.url)


def test_what_was_downloaded_is_not_downloaded_again_but_checked(
    host, install, locked, index, server
):
    shutil.copytree(index.folder / "gunicorn", server.folder / "simple/gunicorn")
    settings = {"index_url": server.url, "index_ca": server.ca.read_text()}
    assert install(locked("gunicorn", "27.0.0"), **settings)["changed"]
    for wheel in server.folder.glob("simple/gunicorn/*.whl"):
        wheel.unlink()
    (host.environment / ".complete").unlink()
    assert install(locked("gunicorn", "27.0.0"), **settings)["changed"]
    (host.environment / ".complete").unlink()
    said = install(f"gunicorn==27.0.0 --hash=sha256:{'0' * 64}", **settings)["msg"]
    assert "404" in said or "Hash mismatch" in said


def test_the_cache_does_not_grow_without_end(host, install, locked, monkeypatch):
    install(locked("gunicorn", "27.0.0"))
    assert host_uv.size(host_uv.CACHE) > 0
    (host.environment / ".complete").unlink()
    monkeypatch.setattr(host_uv, "CACHE_LIMIT", 1)
    install(locked("gunicorn", "27.0.0"))
    assert host_uv.size(host_uv.CACHE) == 0


def test_settings_of_the_host_do_not_win_over_those_of_the_app(host, monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "of the host")
    wanted = {"index_url": "https://me:secret@localhost/simple", "index_ca": "a CA"}
    with host_uv.index_settings(wanted) as index:
        known = index.environment()
        assert "of the host" not in known.values()
        assert not any("secret" in value for value in known.values())
        file = Path(known["UV_CONFIG_FILE"])
        assert "https://me:secret@localhost/simple" in file.read_text()
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert Path(known["SSL_CERT_FILE"]).read_text() == "a CA"
    with host_uv.index_settings({"index_url": "", "index_ca": ""}) as index:
        assert index.environment()["UV_DEFAULT_INDEX"] == "of the host"


@pytest.fixture
def server(tmp_path):
    """Return an index that asks for a password, with a certificate of its own CA."""
    with IndexServer(tmp_path / "served", "secret") as server:
        server.add_source("broken", "raise RuntimeError('no compiler here')")
        yield server
        server.shutdown()


@pytest.fixture
def wheel(server):
    """Return the lock of another uv, which the index has for this machine and others."""
    folder = server.folder / "simple/uv"
    folder.mkdir()
    for machine in ("x86_64", "aarch64", "riscv64"):
        name = f"uv-99.0-py3-none-manylinux_2_17_{machine}.manylinux2014_{machine}.whl"
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("uv-99.0.data/scripts/uv", f"#!/bin/echo\n{machine}")
    server.list(folder)
    return "\n".join(["uv==99.0", *(f"--hash=sha256:{digest(p)}" for p in folder.glob("*.whl"))])


@pytest.fixture
def settings(server):
    """Return how the index is reached."""
    return {"index_url": server.url, "index_ca": server.ca.read_text()}


def test_uv_comes_from_the_index_and_older_versions_go(host, wheel, settings, server):
    with host_uv.index_settings(settings) as index:
        program = host_uv.install_uv(wheel, index)
        shutil.rmtree(server.folder / "simple/uv")
        assert host_uv.install_uv(wheel, index) == program
    assert Path(program).read_text().endswith(platform.machine())
    assert subprocess.check_output([program], text=True).strip() == program
    assert [path.name for path in (host.folder / "tools").iterdir()] == ["uv-99.0"]


def test_another_uv_than_the_locked_one_is_not_installed(host, wheel, settings):
    lock = re.sub(r"sha256:\w+", "sha256:00", wheel)
    with host_uv.index_settings(settings) as index, pytest.raises(RefusedError, match="mismatch"):
        host_uv.install_uv(lock, index)
    assert host.program.exists()
    assert len(list((host.folder / "tools").iterdir())) == 1


# What uv says, and what the operator is told to do about it.


def test_advice_where_the_index_has_another_file(install):
    said = install(f"gunicorn==27.0.0 --hash=sha256:{'0' * 64}")["msg"]
    assert advice(said).startswith("The index gives another file than the one that was locked")


def test_advice_where_the_lock_lacks_something(install, locked):
    said = install(locked("gunicorn", "27.0.0"), complete=False)["msg"]
    assert "`packaging`" in said
    assert advice(said).startswith("The lock is not complete in itself")


@pytest.mark.parametrize("line", ["gunicorn==99", "nothere==1.0"])
def test_advice_where_the_index_lacks_something(install, line):
    said = install(f"{line} --hash=sha256:{'0' * 64}")["msg"]
    assert line in said
    assert advice(said).startswith("The index does not have it")


def test_advice_where_git_is_missing(host, install, locked, monkeypatch):
    monkeypatch.setenv("PATH", str(host.folder))
    wanted = "six @ git+https://localhost:1/six.git"
    said = install(locked("gunicorn", "27.0.0"), unhashed=[wanted])["msg"]
    assert "app_build_packages: [git]" in advice(said)


@pytest.fixture
def broken(server):
    """Return the lock of what does not compile."""
    (source,) = (server.folder / "simple/broken").glob("*.gz")
    return f"broken==1.0 --hash=sha256:{digest(source)}"


def test_advice_where_a_package_does_not_compile(install, server, broken):
    said = install(broken, index_url=server.url, index_ca=server.ca.read_text())["msg"]
    assert "RuntimeError: no compiler here" in said
    assert "app_build_packages: [build-essential, python3-dev" in advice(said)


def test_advice_where_the_ca_is_another(install, server, broken):
    said = install(broken, index_url=server.url)["msg"]
    assert "app_index_ca: " in advice(said)


def test_advice_where_the_password_is_another(install, server, broken):
    url = server.url.replace("secret", "hunter2")
    said = install(broken, index_url=url, index_ca=server.ca.read_text())["msg"]
    assert "hunter2" not in said
    assert "app_index_url: https://user:password@" in advice(said)


def test_advice_where_the_index_does_not_answer(install, locked, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    said = install(locked("gunicorn", "27.0.0"), index_url="https://localhost:1/simple")["msg"]
    assert "Connection refused" in said
    assert advice(said).startswith("The index does not have it, or does not answer this host")


@pytest.mark.parametrize(
    ("there", "known", "example"),
    [
        ("uv-99.0", {}, "app_index_url: https://pypi.org/simple"),  # no page of uv's
        ("uv-98.0", {}, "app_index_url: https://pypi.org/simple"),
        ("uv-99.0", {"index_ca": ""}, "app_index_ca: "),
        ("uv-99.0", {"password": "hunter2"}, "app_index_url: https://user:password@"),
    ],
)
def test_advice_where_the_index_does_not_give_uv(
    install, wheel, settings, server, there, known, example
):
    if there == "uv-98.0":
        wheel = wheel.replace("uv==99.0", "uv==98.0")
    elif not known:
        shutil.rmtree(server.folder / "simple/uv")
    wanted = settings | known
    wanted["index_url"] = wanted["index_url"].replace("secret", wanted.pop("password", "secret"))
    said = install("gunicorn==27.0.0", uv_lock=wheel, **wanted)["msg"]
    assert "cannot be installed from https://localhost" in said
    assert example in advice(said)
