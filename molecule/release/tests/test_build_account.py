"""Only the build account runs code of dependencies and of the app, in isolation."""

import base64
import hashlib
import io
import json
import re
import secrets
import socket
import tarfile
from contextlib import closing
from shlex import quote

import pytest

from helpers.package_index import IndexServer
from helpers.repository import ROOT
from helpers.wait import wait_for

APP, OTHER = "sample", "fixture"
HOME = {"app": APP, "root": f"/srv/{APP}", "user": APP}
CACHE = f"/var/cache/{APP}-build"
UV_LOCK = (ROOT / "requirements-uv.lock").read_text()
METADATA = "169.254.169.254"
READS = [
    f"/etc/{APP}/probed",
    "/dev/shm/probed",
    f"/srv/{OTHER}/shared",
    f"/srv/{OTHER}/releases",
    "/root",
    "/run/dbus",
]
# Records its user, and what it can read or connect to.
PROBE = """
import glob, json, os, socket
def can(act, *given):
    try:
        act(*given)
        return True
    except OSError:
        return False
def read(path):
    return os.listdir(path) if os.path.isdir(path) else open(path).read()
seen = {"uid": os.getuid(), "groups": os.getgroups()}
seen["read"] = [path for path in READS if can(read, path)]
seen["reached"] = [at for at in REACHES if can(socket.create_connection, tuple(at), 3)]
with open(f"CACHE/seen.WHERE.{os.getpid()}", "w") as file:
    json.dump(seen, file)
"""
PROJECT = """[project]
name = "nosy"
version = "1.0"
[build-system]
requires = ["setuptools"]
build-backend = "backend"
backend-path = ["."]
"""
SETUP = """
import sys, setuptools
place = "lib/python%d.%d/site-packages" % sys.version_info[:2]
setuptools.setup(name="nosy", py_modules=["nosy"], data_files=[(place, ["nosy.pth"])])
"""
WAITS = f"""
import os, time
open("{CACHE}/waits", "w").close()
while not os.path.exists("{CACHE}/go"):
    time.sleep(0.1)
from setuptools.build_meta import *
"""


def packed(prefix, files):
    """Return an archive of texts, by path."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{prefix}{path}")
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture(scope="module")
def probe(host):
    """Return a function that returns the probe for a directory, once all its targets exist."""
    serve = f"ip address add {METADATA}/32 dev lo; exec python3 -m http.server --bind {METADATA} 80"
    host.check_output("systemd-run --unit=metadata --collect sh -c %s", serve)
    host.check_output(f"touch /etc/{APP}/probed /dev/shm/probed")
    internet = host.check_output("getent ahostsv4 pypi.org").split()[0]
    reaches = [(METADATA, 80), ("127.0.0.1", 22), (internet, 443)]

    def probe(where, cache=CACHE):
        known = {"READS": READS, "REACHES": reaches, "CACHE": cache, "WHERE": where}
        return re.sub("READS|REACHES|CACHE|WHERE", lambda found: str(known[found[0]]), PROBE)

    def root_can():
        return json.loads(
            host.check_output("python3 -c %s; cat /tmp/seen.*; rm /tmp/seen.*", probe("x", "/tmp"))
        )

    try:
        assert wait_for(lambda: root_can()["reached"] == [[*at] for at in reaches])
        assert root_can()["read"] == READS
        yield probe
    finally:
        host.run(f"systemctl stop metadata; ip address delete {METADATA}/32 dev lo")
        left = f"/dev/shm/probed /tmp/seen.* {CACHE}/seen.* {CACHE}/go {CACHE}/waits"
        host.run(f"rm -f /etc/{APP}/probed {left}")


@pytest.fixture(scope="module")
def index(host, address, probe, tmp_path_factory):
    """Return a package index on localhost of both machines, with probes and a slow package."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as found:
        found.connect((address, 9))
        here = found.getsockname()[0]
    with IndexServer(tmp_path_factory.mktemp("index") / "index", secrets.token_hex(8)) as server:
        server.mirror("setuptools")
        sources = {
            "nosy": {
                "pyproject.toml": PROJECT,
                "backend.py": f"{probe('backend')}\nfrom setuptools.build_meta import *\n",
                "setup.py": probe("setup") + SETUP,
                "nosy.py": probe("pth"),
                "nosy.pth": "import nosy\n",
            },
            "waits": {"pyproject.toml": PROJECT.replace("nosy", "waits"), "backend.py": WAITS},
        }
        for name, files in sources.items():
            folder = server.folder / "simple" / name
            folder.mkdir()
            files["PKG-INFO"] = f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n"
            (folder / f"{name}-1.0.tar.gz").write_bytes(packed(f"{name}-1.0/", files))
            server.list(folder)
        listen = f"--socket-property=ListenStream=127.0.0.1:{server.server_port}"
        proxy = f"/usr/lib/systemd/systemd-socket-proxyd {here}:{server.server_port}"
        host.check_output(f"systemd-run --unit=index --collect {listen} {proxy}")
        yield server
        host.check_output("systemctl stop 'index.*'")
        server.shutdown()


@pytest.fixture(scope="module")
def command(host, index):
    """Return a function that returns the command and arguments of a call."""
    told = HOME | {"uv_lock": UV_LOCK, "index_url": index.url, "index_ca": index.ca.read_text()}

    def command(name, **wanted):
        return "printf %s %s | flaskstack call %s", "%s", json.dumps(told | wanted), name

    return command


@pytest.fixture(scope="module")
def call(host, command):
    """Return a function that runs a call and returns its answer."""
    return lambda name, **wanted: json.loads(host.check_output(*command(name, **wanted)))


@pytest.fixture(scope="module")
def environment(host, index):
    """Return the input for an environment with a package that is built on the host."""

    def environment(package):
        (source,) = (index.folder / "simple" / package).glob("*.gz")
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        return {
            "environment": f"test-{package}",
            "python": host.check_output("readlink -f /usr/bin/python3"),
            "lock": f"{package}==1.0 --hash=sha256:{digest}\n",
            "lock_name": "requirements.txt",
            "complete": True,
            "unhashed": [],
        }

    yield environment
    host.run(f"rm -rf /srv/{APP}/*/test-* /srv/{APP}/releases/.built.tar.gz")


@pytest.fixture
def seen(host):
    """Return a function that returns the new records of the probes."""

    def seen():
        files = host.run(f"ls {CACHE}/seen.*").stdout.split()
        found = [(path, json.loads(host.check_output(f"cat {path}; rm {path}"))) for path in files]
        account = int(host.check_output(f"id -u {APP}-build"))
        for path, seen in found:
            assert seen["uid"] == account, path
            assert seen["groups"] in ([], [int(host.check_output(f"id -g {APP}-build"))]), path
            assert (seen["read"], seen["reached"]) == ([], []), path
        return {path.split(".")[1] for path, _ in found}

    return seen


def only_roots(host, folder):
    """Return whether only root can change a directory and its content."""
    return host.check_output(f"find {folder} ! -user root -o ! -type l -perm /022") == ""


def put(host, path, content):
    """Write a file on the host."""
    text = base64.b64encode(content).decode()
    host.check_output("printf %s %s | base64 -d > %s", "%s", text, path)


def test_a_dependency_is_built_and_installed_in_isolation(host, environment, call, seen):
    assert call("environment", **environment("nosy")) == {"changed": True}
    assert seen() == {"backend", "setup", "pth"}
    assert only_roots(host, f"/srv/{APP}/environments/test-nosy")
    assert call("environment", **environment("nosy")) == {"changed": False}


def test_the_app_is_built_in_isolation(host, environment, call, probe, seen):
    """Build commands have a cache and know the app's name."""
    call("environment", **environment("nosy"))
    seen()
    put(host, f"/srv/{APP}/releases/.built.tar.gz", packed("", {"web.py": probe("app")}))
    archive = dict.fromkeys(("archive", "dest"), f"/srv/{APP}/releases/.built.tar.gz")
    told = {
        "commands": ["echo $FLASK_APP $PWD $npm_config_cache $A >said", "python -c 'import web'"]
    }
    told |= {"build_environment": {"A": "a $b 'c' \"d\""}, "wsgi": "web:app", "build_hosts": []}
    told |= {"id": "test-app", "environment": "test-nosy", "install_project": False}
    assert call("build", **archive, **told) == {"changed": True}
    assert seen() == {"app", "pth"}
    said = host.check_output(f"tar -xzOf {archive['dest']} ./said")
    assert said == f"web:app /srv/{APP}/releases/test-app {CACHE}/npm a $b 'c' \"d\""
    told["commands"] = ["python -c 'import os; os.environ[\"SECRET_KEY\"]'"]
    answer = call("build", **archive, **told)
    assert "SECRET_KEY" in answer["msg"]
    assert "for example: app_build_environment: {SECRET_KEY" in answer["msg"]
    assert not host.file(f"/srv/{APP}/releases/test-app").exists


def test_installing_a_release_runs_none_of_its_code(host, environment, call, probe, seen):
    """Modules that shadow Python's own and start-up files of an environment are not run either."""
    call("environment", **environment("nosy"))
    seen()
    names = ("struct.py", "sitecustomize.py", "usercustomize.py", "compileall.py")
    put(host, "/tmp/app.tar.gz", packed("", dict.fromkeys(names, probe("app"))))
    told = {"id": "test-app", "environment": "test-nosy", "archive": "/tmp/app.tar.gz"}
    assert call("place", **told) == {"changed": True}
    assert seen() == set()
    release = f"/srv/{APP}/releases/test-app"
    assert host.file(f"{release}/.venv").linked_to == f"/srv/{APP}/environments/test-nosy"
    assert len(host.check_output(f"ls {release}/__pycache__").split()) == len(names)
    assert only_roots(host, release)
    host.check_output(f"touch {release}/kept")
    assert call("place", **told) == {"changed": False}
    assert host.file(f"{release}/kept").exists


def test_an_interpreter_is_installed_and_never_run_by_root(host, call):
    script = f"#!/bin/sh\nid -u >>{CACHE}/go\necho 3.99.1\n"
    put(host, "/tmp/python.tar.gz", packed("python/", {"bin/python3.99": script}))
    digest = host.check_output("sha256sum /tmp/python.tar.gz").split()[0]
    told = {"python": "3.99", "url": "file:///tmp/python.tar.gz", "checksum": f"sha256:{digest}"}
    try:
        wrong = call("python", **told | {"checksum": "sha256:00"})
        assert digest in wrong["example"]
        found = call("python", **told)
        assert found["python"]["executable"] == "/opt/flaskstack/python/3.99.1/bin/python3.99"
        assert found["python"]["version"] == found["python"]["version"] == "3.99.1"
        assert only_roots(host, "/opt/flaskstack")
        assert host.check_output("ls -A /opt/flaskstack/python") == "3.99.1"
        assert not call("python", **told)["changed"]
        account = host.check_output(f"id -u {APP}-build")
        assert set(host.check_output(f"cat {CACHE}/go; rm {CACHE}/go").split()) == {account}
    finally:
        host.run("rm -rf /opt/flaskstack/python/3.99.1")


def test_an_interrupted_build_is_incomplete_and_repeated(host, environment, command, call):
    """It stays confined while it runs."""
    wanted = environment("waits")
    folder, table = f"/srv/{APP}/environments/test-waits", f"inet flaskstack_{APP}-build"
    line, *given = command("environment", **wanted)
    line %= tuple(map(quote, given))
    host.check_output("systemd-run --unit=cut --collect sh -c %s", line.replace("$", "$$"))
    wait_for(lambda: host.run(f"ls {CACHE}/waits").rc == 0, 60)
    host.check_output("systemctl kill --signal=KILL cut")
    wait_for(lambda: host.run("systemctl is-active cut").rc != 0)
    assert host.run(f"nft list table {table}").rc == 0
    assert not host.file(folder).exists
    host.check_output(f"touch {CACHE}/go")
    assert call("environment", **wanted) == {"changed": True}
    assert host.file(f"{folder}/.complete").exists
    assert host.run(f"pgrep -u {APP}-build").rc == 1
    assert host.run(f"nft list table {table}").rc != 0
    assert host.check_output(f"ls -A /srv/{APP}/environments | grep '^[.]'; true") == ""
