"""Deploys of an app without nginx and a database, with other requirements and build commands."""

import json
import re
import secrets

import pytest

from helpers.package_index import IndexServer
from helpers.repository import ROOT

COMPLETE = "stat -Lc '%i %z' /srv/fixture/current/.venv/.complete"


def test_a_stopped_process_is_started(host, active_release, operator):
    host.check_output("systemctl stop fixture-clock@1.service")
    done = operator.deploy(ROOT / "molecule/release/files/app")
    assert done.code == 0, done.output
    assert host.service("fixture-clock@1.service").is_running
    active_release()


def test_check_mode_changes_nothing_and_an_interrupted_build_is_repeated(
    host, active_release, operator, version
):
    """The import of this version takes longer than a request may."""
    source = version("web.py", "import os", "import os, time\n\ntime.sleep(8)")
    before, releases = active_release(), host.file("/srv/fixture/releases").listdir()
    check = operator.deploy(source, "--check")
    assert (check.code, check.changed) == (0, 2)  # a deploy would build and activate it
    release = re.search(rf"(\S+) would replace {before}", check.output)[1]
    assert host.file("/srv/fixture/releases").listdir() == releases
    host.check_output(
        "cd /srv/fixture/current/.venv && rm -r .complete lib/python3*/site-packages/gunicorn"
    )
    incomplete = f"/srv/fixture/releases/{release} /srv/fixture/releases/.{release}"
    for folder in incomplete.split():
        host.check_output(f"mkdir {folder} && touch {folder}/half")
    done = operator.deploy(source, release_health_timeout=40)
    assert done.code == 0, done.output
    assert active_release() == release
    assert not host.run("ls -d /srv/fixture/releases/*/half /srv/fixture/releases/.??*").stdout
    host.check_output("/srv/fixture/current/.venv/bin/gunicorn --version")


@pytest.fixture
def index(on_localhost, tmp_path):
    """Return a package index with Gunicorn, on localhost of both machines."""
    with IndexServer(tmp_path / "index", secrets.token_hex(8)) as server:
        server.mirror("gunicorn==27.0.1")
        with on_localhost(server.server_port):
            yield server
        server.shutdown()


def test_unpinned_requirements_of_an_index_with_a_password_and_its_own_ca(
    host, active_release, operator, version, index
):
    """They are resolved once: the second version uses the environment of the first."""
    settings = {"app_requirements": "requirements.txt"}
    settings |= {"app_index_url": index.url, "app_index_ca": str(index.ca)}
    watch = "while :; do cat /proc/[0-9]*/cmdline; sleep 0.05; done 2>/dev/null | tr '\\0' ' '"
    host.check_output(f"systemd-run --unit=watch --collect sh -c {watch!r}' > /tmp/arguments'")
    releases, environments, output = [], [], ""
    for _ in range(2):
        source = version()
        (source / "requirements.lock").unlink()
        (source / "requirements.txt").write_text("gunicorn  # of another index\n")
        done = operator.deploy(source, "-vvv", **settings)
        assert done.code == 0, done.output
        releases.append(active_release())
        environments.append(host.check_output(COMPLETE))
        output += done.output
    host.check_output("systemctl stop watch")
    assert releases[0] != releases[1]
    assert environments[0] == environments[1]
    assert "Not locked: requirements.txt." in output
    password = re.search(r"me:(\w+)@", index.url)[1]
    arguments = host.file("/tmp/arguments").content_string
    assert " pip install" in arguments
    assert password not in arguments
    assert password not in re.sub(r"EXEC .*|^\s*<.*", "", output)
    assert host.run("grep -r -F %s /etc /run /srv /var/cache", password).rc == 1


# Records the build user, its environment, and which files of the app it can access.
RECORD = """import json, os, sys
def can(path, mode):
    try:
        open(path, mode)
        return True
    except OSError:
        return False
json.dump({
    "user": os.getuid(),
    "python": sys.prefix.rpartition("/")[0],
    "colour": os.environ["COLOUR"],
    "secret": "SECRET_KEY" in os.environ or can("/etc/fixture/current/environment", "r"),
    "writes": can("/srv/fixture/x", "w") or can("/var/lib/fixture/x", "w"),
}, open("record.json", "w"))
"""
TOOL = """
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
    host, active_release, operator, version
):
    """An installed app also has metadata, entry points and scripts; app_python is a version."""
    source = version()
    for name, text in (("record.py", RECORD), ("tool.py", TOOL), ("pyproject.toml", PROJECT)):
        (source / name).write_text(text)
    settings = {
        "app_build_commands": [
            "python record.py",
            "date +%N > dated.txt; mkdir node_modules; touch node_modules/x",
        ],
        "app_build_environment": {"COLOUR": "a $b 'c' \"d\""},
        "app_install_project": True,
        "app_python": host.check_output(
            "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"
        ),
    }
    done = operator.deploy(source, **settings)
    assert done.code == 0, done.output
    release = active_release()
    folder = f"/srv/fixture/releases/{release}"
    assert json.loads(host.file(f"{folder}/record.json").content_string) == {
        "user": host.user("fixture-build").uid,
        "python": "/srv/fixture/environments",
        "colour": "a $b 'c' \"d\"",
        "secret": False,
        "writes": False,
    }
    output = host.check_output("flaskstack fixture run fixture-tool")
    assert output == f"installed 1.0 {folder}/.venv"
    points = "from importlib.metadata import entry_points as e; print(e(group='things'))"
    assert "tool:main" in host.check_output(f'flaskstack fixture run python -c "{points}"')
    files = host.check_output(f"ls -A {folder}").split()
    assert not {"build", "fixture.egg-info", "node_modules"} & set(files)
    # A damaged release is installed again from the same build.
    dated = host.check_output(f"cat {folder}/dated.txt; rm {folder}/record.json {folder}/.venv")
    assert operator.deploy(source, **settings).code == 0
    assert host.check_output(f"ls {folder}/record.json; cat {folder}/dated.txt").endswith(dated)
    active_release()


# Records the database URL, and whether the arguments of another process show it.
MIGRATE = """python -c "
import glob, os, pwd
url = os.environ['DATABASE_URL']
shown = sum(url.encode() in open(name, 'rb').read() for name in glob.glob('/proc/[0-9]*/cmdline'))
user = pwd.getpwuid(os.getuid()).pw_name
renamed = os.environ['OTHER_NAME'] == url
print(user, url, renamed, shown, file=open('var/uploads/migrations', 'a'))
"
"""
# A server that the role neither locks nor dumps; molecule/fleet covers one that it does.
DATABASE = {
    "app_database_driver": "postgresql+psycopg",
    "app_migrate_commands": [MIGRATE],
    "app_environment": {"OTHER_NAME": "{{ app_database_url }}"},
    "app_database_password": "of-the-app",
    "app_migration_password": "of-the-migration",
}


def test_each_release_migrates_once_and_shared_folders_outlive_releases(
    host, active_release, operator, version
):
    """Releases and environments beyond release_keep are removed."""
    host.check_output("rm -rf /srv/fixture/shared/var")
    for _ in range(2):
        done = operator.deploy(
            version(), app_shared_paths=["var/uploads"], release_keep=2, **DATABASE
        )
        assert done.code == 0, done.output
        assert "of-the-migration" not in done.output
    url = "postgresql+psycopg://fixture_migrate:of-the-migration@"
    migrations = host.check_output("cat /srv/fixture/shared/var/uploads/migrations").splitlines()
    assert [re.sub(r"@\S+", "@", line) for line in migrations] == [f"fixture {url} True 0"] * 2
    assert active_release() in host.file("/srv/fixture/releases").listdir()
    assert len(host.file("/srv/fixture/releases").listdir()) == 2
    used = host.check_output("readlink -f /srv/fixture/releases/*/.venv").split()
    environments = host.file("/srv/fixture/environments").listdir()
    assert {path.rsplit("/", 1)[1] for path in used} == set(environments)
