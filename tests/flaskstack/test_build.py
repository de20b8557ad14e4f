"""Build commands, the app's wheel, and the atomic installation of a release."""

from __future__ import annotations

import subprocess
import sys
import tarfile

import pytest

from flaskstack import build
from flaskstack.errors import ValidationError
from helpers.package_index import IndexServer

PROJECT = """[project]
name = "shop"
version = "1.0"
[project.scripts]
shop-tool = "web:main"
[tool.setuptools]
py-modules = ["web"]
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""


@pytest.fixture
def archive(tmp_path):
    """Return a function that packs an app."""

    def archive(files):
        (tmp_path / "source").mkdir()
        for name, text in files.items():
            (tmp_path / "source" / name).write_text(text)
        with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as packed:
            packed.add(tmp_path / "source", ".")
        return str(tmp_path / "source.tar.gz")

    return archive


@pytest.fixture
def wanted(host_wants, sandboxed):
    """Return the common parameters of a build and of an installation."""
    environment = sandboxed / "root/environments/env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    return host_wants | {"id": "one", "environment": "env"}


@pytest.fixture
def run(wanted, archive, sandboxed):
    """Return a function that builds an app and returns the text files of the result."""

    def run(files, *commands, **options):
        params = {"commands": commands, "install_project": False, "wsgi": "web:app"}
        params |= {"build_environment": {}, "build_hosts": []}
        params |= {"dest": str(sandboxed / "built.tar.gz")}
        build.build(wanted | params | {"archive": archive(files)} | options)
        with tarfile.open(sandboxed / "built.tar.gz") as built:
            files = [member for member in built.getmembers() if member.isfile()]
            return {file.name[2:]: built.extractfile(file).read().decode() for file in files}

    return run


def test_commands_get_the_environment_and_their_variables(run, sandboxed):
    commands = ["echo $FLASK_APP $COLOUR $PWD $VIRTUAL_ENV >known", "readlink .venv >>known"]
    commands += ["mkdir node_modules; touch node_modules/x"]
    commands += ["python -c 'import sys; print(sys.prefix)' >x"]
    files = run({"web.py": "app = 1"}, *commands, build_environment={"COLOUR": "a $b"})
    root, environment = sandboxed / "root", sandboxed / "root/environments/env"
    assert files.pop("known").split("\n") == [
        f"web:app a $b {root}/releases/one {environment}",
        "../../environments/env",
        "",
    ]
    assert files == {"web.py": "app = 1", "x": f"{environment}\n"}
    assert not list((root / "releases").iterdir())


def test_a_wheel_of_the_app_is_installed_with_it(run, sandboxed, tmp_path):
    with IndexServer(tmp_path / "served", "secret") as server:
        server.mirror("setuptools")
        settings = {"index_url": server.url, "index_ca": server.ca.read_text()}
        files = run(
            {"web.py": "def main(): ...", "pyproject.toml": PROJECT},
            install_project=True,
            **settings,
        )
        server.shutdown()
    assert not [name for name in files if name.startswith(("build/", "shop.egg-info/"))]
    assert ".site-packages/shop-1.0.dist-info/METADATA" in files
    script = files[".site-packages/bin/shop-tool"].split("\n")[0]
    assert script == f"#!{sandboxed}/root/releases/one/.venv/bin/python"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("seq 50; echo no such translation >&2; exit 7", "50\nno such translation"),
        (
            "python -c 'import os; os.environ[\"SECRET_KEY\"]'",
            "app_build_environment: {SECRET_KEY: ",
        ),
        ("echo npm error code ENOTFOUND; false", "app_build_hosts: [registry.npmjs.org, "),
    ],
)
def test_a_failing_command_is_reported(run, sandboxed, command, message):
    with pytest.raises(ValidationError) as refusal:
        run({}, "true", command)
    assert str(refusal.value).startswith(f"app_build_commands: `{command}` failed with code ")
    assert message in str(refusal.value)
    assert not (sandboxed / "built.tar.gz").exists()


def test_a_release_has_its_files_bytecode_and_environment(wanted, archive, sandboxed):
    ran = f"open('{sandboxed}/ran', 'w')"
    files = {"app.py": "colour = 'red'\n", "template.py": "{{ no python }}", "struct.py": ran}
    params = wanted | {"archive": archive(files | {"sitecustomize.py": ran})}
    release = sandboxed / "root/releases/one"
    assert build.place(params) == {"changed": True}
    assert (release / "app.py").read_text() == "colour = 'red'\n"
    assert list((release / "__pycache__").glob("app.*.pyc"))
    assert (release / ".venv/bin/python").exists()
    assert not (sandboxed / "ran").exists()
    (release / "app.py").write_text("changed")
    assert build.place(params) == {"changed": False}
    assert (release / "app.py").read_text() == "changed"
    (sandboxed / "broken.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValidationError, match="gzip"):
        build.place(wanted | {"id": "two", "archive": str(sandboxed / "broken.tar.gz")})
    assert [path.name for path in (sandboxed / "root/releases").iterdir()] == ["one"]
