"""Build a release on a real host: dependencies, build commands and the app itself."""

import json
import re
import secrets
import socket
from contextlib import closing

import pytest

from helpers.package_index import IndexServer

RELEASES = "/srv/fixture/releases /srv/fixture/environments"


@pytest.fixture
def left(host):
    """Return a function that lists release files, to compare before and after."""
    return lambda: host.check_output(f"ls -A {RELEASES}; ls -A /srv/fixture/releases")


@pytest.fixture
def index(host, address, tmp_path):
    """Return a package index on localhost of both machines, with Gunicorn and a broken package."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((address, 9))
        here = probe.getsockname()[0]
    with IndexServer(tmp_path / "index", secrets.token_hex(8)) as server:
        server.mirror("gunicorn==27.0.1")
        server.add_source("broken", "raise RuntimeError('no compiler here')")
        listen = f"--socket-property=ListenStream=127.0.0.1:{server.server_port}"
        proxy = f"/usr/lib/systemd/systemd-socket-proxyd {here}:{server.server_port}"
        host.check_output(f"systemd-run --unit=index --collect {listen} {proxy}")
        yield server
        host.check_output("systemctl stop 'index.*'")
        server.shutdown()


def loosely(version, *lines):
    """Return a version with unpinned requirements."""
    source = version()
    (source / "requirements.lock").unlink()
    (source / "requirements.txt").write_text("\n".join(lines))
    return source


def test_unpinned_requirements_are_resolved_once(site, current, operator, version, host):
    complete = "stat -Lc '%i %z' /srv/fixture/current/.venv/.complete"
    settings = {"app_requirements": "requirements.txt", "app_extra_requirements": ["gunicorn"]}
    done = operator.deploy(loosely(version, "packaging<26"), **settings)
    assert done.code == 0, done.output
    assert "Not locked: requirements.txt." in done.output
    assert "packaging-25" in host.check_output("ls /srv/fixture/current/.venv/lib/*/site-packages")
    environment = host.check_output(complete)
    again = operator.deploy(loosely(version, "packaging<26"), **settings)
    assert again.code == 0, again.output
    assert host.check_output(complete) == environment
    assert site.get("/").text == current()


def test_an_index_with_a_password_and_its_own_ca(site, current, operator, version, host, index):
    watch = "while :; do cat /proc/[0-9]*/cmdline; sleep 0.05; done 2>/dev/null | tr '\\0' ' '"
    host.check_output(f"systemd-run --unit=watch --collect sh -c {watch!r}' > /tmp/seen'")
    source = loosely(version, "gunicorn  # of another index")
    settings = {"app_index_url": index.url, "app_index_ca": str(index.ca)}
    done = operator.deploy(source, "-vvv", app_requirements="requirements.txt", **settings)
    host.check_output("systemctl stop watch")
    assert done.code == 0, done.output
    password = re.search(r"me:(\w+)@", index.url).group(1)
    assert site.get("/").text == current()
    assert " pip install" in host.file("/tmp/seen").content_string
    assert password not in host.file("/tmp/seen").content_string
    assert password not in re.sub(r"EXEC .*|^\s*<.*", "", done.output)
    assert host.run("grep -r -F %s /etc /run /srv /var/cache", password).rc == 1


def test_a_failed_compilation_leaves_no_files(left, site, current, operator, version, index):
    before, now = left(), current()
    source = loosely(version, "gunicorn", "broken")
    settings = {"app_index_url": index.url, "app_index_ca": str(index.ca)}
    settings["app_requirements_builds"] = True
    done = operator.deploy(source, app_requirements=["requirements.txt"], **settings)
    assert done.code != 0
    assert "RuntimeError: no compiler here" in done.output
    assert "for example: app_build_packages: [build-essential" in done.output
    assert left() == before
    assert site.get("/").text == current() == now


def test_conflicting_versions_are_rejected(left, current, operator, version, index):
    before = left()
    done = operator.deploy(
        loosely(version, "gunicorn>99"),
        app_requirements="requirements.txt",
        app_index_url=index.url,
        app_index_ca=str(index.ca),
    )
    assert done.code != 0
    assert "gunicorn>99" in done.output
    assert re.search(r"for example:\s+app_constraints: ", done.output)
    assert left() == before


# Records the build user, its environment, and which files of the app it can access.
LOOK = """import glob, json, os, sys
def can(path, mode):
    try:
        open(path, mode)
        return True
    except OSError:
        return False
json.dump({
    "user": os.getuid(),
    "python": sys.prefix,
    "colour": os.environ["COLOUR"],
    "secret": "SECRET_KEY" in os.environ or can("/etc/fixture/current/environment", "r"),
    "writes": can("/srv/fixture/x", "w") or can("/var/lib/fixture/x", "w"),
}, open("look.json", "w"))
"""


INSTALLED = """
import importlib.metadata, sys


def main():
    print("installed", importlib.metadata.version("fixture"), sys.prefix)
"""
PROJECT = """[project]
name = "fixture"
version = "1.0"
requires-python = ">=3.11"
[project.scripts]
fixture-tool = "tool:main"
[project.entry-points.things]
tool = "tool:main"
[tool.setuptools]
py-modules = ["web", "tool", "clock"]
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""


def test_build_commands_run_unprivileged_with_the_environment(
    host, site, current, operator, version
):
    """An installed app also has metadata, entry points and scripts."""
    source = version()
    (source / "look.py").write_text(LOOK)
    (source / "tool.py").write_text(INSTALLED)
    (source / "pyproject.toml").write_text(PROJECT)
    commands = ["python look.py", "date +%N > dated.txt; mkdir node_modules; touch node_modules/x"]
    given = {"app_build_commands": commands, "app_build_environment": {"COLOUR": "a $b 'c' \"d\""}}
    given["app_install_project"] = True
    done = operator.deploy(source, **given)
    assert done.code == 0, done.output
    look = json.loads(host.check_output("cat /srv/fixture/current/look.json"))
    assert look.pop("user") == host.user("fixture-build").uid
    assert look.pop("python").startswith("/srv/fixture/environments/")
    assert look == {"colour": "a $b 'c' \"d\"", "secret": False, "writes": False}
    release = current()
    said = host.check_output("flaskstack fixture run fixture-tool")
    assert said == f"installed 1.0 /srv/fixture/releases/{release}/.venv"
    points = "from importlib.metadata import entry_points as e; print(e(group='things'))"
    assert "tool:main" in host.check_output(f'flaskstack fixture run python -c "{points}"')
    left = host.check_output(f"ls -A /srv/fixture/releases/{release}").split()
    assert not {"build", "fixture.egg-info", "node_modules"} & set(left)
    assert site.get("/").text == release
    dated = host.check_output("cat /srv/fixture/current/dated.txt")
    assert operator.deploy(source, **given).changed == 0
    host.check_output(f"rm -r /srv/fixture/releases/{release}/look.json")
    host.check_output(f"rm /srv/fixture/releases/{release}/.venv")
    assert operator.deploy(source, **given).code == 0
    assert host.check_output("cat /srv/fixture/current/dated.txt look.json; true").startswith(dated)


def test_an_interpreter_is_found_by_its_version(site, current, operator, version, host):
    """Metadata and scripts of the previous release are removed."""
    there = host.check_output("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
    done = operator.deploy(version(), app_python=there)
    assert done.code == 0, done.output
    assert site.get("/").text == current()
    assert host.run("flaskstack fixture run fixture-tool").rc == 127


def test_a_failing_build_command_is_reported_and_leaves_no_files(
    left, site, current, operator, version
):
    before, now = left(), current()
    commands = ["true", "seq 100; echo no such translation >&2; exit 7"]
    done = operator.deploy(version(), app_build_commands=commands)
    assert done.code != 0
    assert "failed with code 7" in done.output
    assert re.search(r"\n\s+99\n\s+100\n\s+no such translation", done.output)
    assert not re.search(r"\n\s+60\n", done.output)
    assert left() == before
    assert site.get("/").text == current() == now


@pytest.mark.parametrize("python", ["python3.99", "/opt/python/bin/python3"])
def test_a_missing_interpreter_is_rejected(left, operator, version, host, python):
    before, there = left(), host.check_output("readlink -f /usr/bin/python3").rsplit("/", 1)[1]
    done = operator.deploy(version(), app_python=python)
    assert done.code != 0
    assert re.search(
        rf"app_python is {python}: is not there on \S+ which has\s+{there} \(3\.", done.output
    )
    assert left() == before
