"""Only the build account runs code of dependencies and of the app, in isolation."""

import base64
import hashlib
import io
import json
import re
import secrets
import tarfile
from shlex import quote

import pytest

from helpers.package_index import IndexServer, list_files
from helpers.repository import ROOT
from helpers.wait import wait_for

APP, OTHER = "sample", "fixture"
ARCHIVE = f"/srv/{APP}/releases/.built.tar.gz"
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
def can(function, *arguments):
    try:
        function(*arguments)
        return True
    except OSError:
        return False
def read(path):
    return os.listdir(path) if os.path.isdir(path) else open(path).read()
record = {"uid": os.getuid(), "groups": os.getgroups()}
record["read"] = [path for path in READS if can(read, path)]
record["reached"] = [at for at in REACHES if can(socket.create_connection, tuple(at), 3)]
with open(f"CACHE/record.WHERE.{os.getpid()}", "w") as file:
    json.dump(record, file)
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
    """Return a tar archive of `files`, which are texts by path."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{prefix}{path}")
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture(scope="module")
def probe(host):
    """Return a function that returns the probe's code for a place. All its targets exist."""
    host.check_output(f"ip address add {METADATA}/32 dev lo")  # nginx answers on all addresses
    host.check_output(f"touch /etc/{APP}/probed /dev/shm/probed")
    internet = host.check_output("getent ahostsv4 pypi.org").split()[0]
    reaches = [(METADATA, 80), ("127.0.0.1", 22), (internet, 443)]

    def probe(where, cache=CACHE):
        values = {"READS": READS, "REACHES": reaches, "CACHE": cache, "WHERE": where}
        return re.sub("READS|REACHES|CACHE|WHERE", lambda found: str(values[found[0]]), PROBE)

    def as_root():
        command = "python3 -c %s; cat /tmp/record.*; rm /tmp/record.*"
        return json.loads(host.check_output(command, probe("x", "/tmp")))

    try:
        assert wait_for(lambda: as_root()["reached"] == [[*at] for at in reaches])
        assert as_root()["read"] == READS
        yield probe
    finally:
        host.run(f"ip address delete {METADATA}/32 dev lo")
        files = f"/etc/{APP}/probed /dev/shm/probed /tmp/record.*"
        host.run(f"rm -f {files} {CACHE}/record.* {CACHE}/go {CACHE}/waits")


@pytest.fixture(scope="module")
def call(host, on_localhost, probe, tmp_path_factory):
    """Return a function that runs a call with an index of probes and a slow package.

    With `background`, the call runs in a unit of that name.
    """
    with IndexServer(tmp_path_factory.mktemp("index") / "index", secrets.token_hex(8)) as index:
        index.mirror("setuptools")
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
            folder = index.folder / "simple" / name
            folder.mkdir()
            files["PKG-INFO"] = f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n"
            (folder / f"{name}-1.0.tar.gz").write_bytes(packed(f"{name}-1.0/", files))
            list_files(folder)
        known = {"app": APP, "root": f"/srv/{APP}", "user": APP, "uv_lock": UV_LOCK}
        known |= {"index_url": index.url, "index_ca": index.ca.read_text()}

        def call(name, background="", **params):
            command = f"printf %s {quote(json.dumps(known | params))} | flaskstack call {name}"
            if background:
                command = command.replace("$", "$$")
                return host.check_output(
                    f"systemd-run --unit={background} --collect sh -c %s", command
                )
            return json.loads(host.check_output("sh -c %s", command))

        with on_localhost(index.server_port):
            yield call
        index.shutdown()
    host.run(f"rm -rf /srv/{APP}/*/test-* {ARCHIVE}")


@pytest.fixture
def install(host, call, tmp_path_factory):
    """Return a function that installs an environment with a package that is built on the host."""

    def install(package, **options):
        (source,) = tmp_path_factory.getbasetemp().glob(f"index[0-9]*/index/simple/{package}/*.gz")
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        return call(
            "environment",
            environment=f"test-{package}",
            python=host.check_output("readlink -f /usr/bin/python3"),
            lock=f"{package}==1.0 --hash=sha256:{digest}\n",
            lock_name="requirements.txt",
            complete=True,
            unhashed=[],
            **options,
        )

    return install


@pytest.fixture
def probed(host):
    """Return a function that checks new records of the probes and returns where each ran."""

    def probed():
        files = host.run(f"ls {CACHE}/record.*").stdout.split()
        records = [json.loads(host.check_output(f"cat {path}; rm {path}")) for path in files]
        account, group = (int(host.check_output(f"id -{of} {APP}-build")) for of in "ug")
        for path, record in zip(files, records, strict=True):
            assert record["uid"] == account, path
            assert record["groups"] in ([], [group]), path
            assert (record["read"], record["reached"]) == ([], []), path
        return {path.split(".")[1] for path in files}

    return probed


def only_root_can_change(host, folder):
    """Return whether only root can change a directory and its content."""
    return host.check_output(f"find {folder} ! -user root -o ! -type l -perm /022") == ""


def put(host, path, content):
    """Write a file on the host."""
    text = base64.b64encode(content).decode()
    host.check_output("printf %s %s | base64 -d > %s", "%s", text, path)


def test_a_dependency_is_built_and_installed_in_isolation(host, install, probed):
    assert install("nosy") == {"changed": True}
    assert probed() == {"backend", "setup", "pth"}
    assert only_root_can_change(host, f"/srv/{APP}/environments/test-nosy")
    assert install("nosy") == {"changed": False}


def test_the_app_is_built_in_isolation(host, install, call, probe, probed):
    install("nosy")
    probed()
    put(host, ARCHIVE, packed("", {"web.py": probe("app")}))
    params = {"commands": ["python -c 'import web'"], "build_environment": {}, "wsgi": "web:app"}
    params |= {"id": "test-app", "build_hosts": [], "install_project": False}
    params |= {"archive": ARCHIVE, "dest": ARCHIVE, "environment": "test-nosy"}
    assert call("build", **params) == {"changed": True}
    assert probed() == {"app", "pth"}
    assert not host.file(f"/srv/{APP}/releases/test-app").exists


def test_installing_a_release_runs_none_of_its_code(host, install, call, probe, probed):
    """Modules that shadow Python's own and start-up files of an environment are not run either."""
    install("nosy")
    probed()
    names = ("struct.py", "sitecustomize.py", "usercustomize.py", "compileall.py")
    put(host, ARCHIVE, packed("", dict.fromkeys(names, probe("app"))))
    params = {"id": "test-app", "environment": "test-nosy", "archive": ARCHIVE}
    assert call("place", **params) == {"changed": True}
    assert probed() == set()
    release = f"/srv/{APP}/releases/test-app"
    assert host.file(f"{release}/.venv").linked_to == f"/srv/{APP}/environments/test-nosy"
    assert len(host.check_output(f"ls {release}/__pycache__").split()) == len(names)
    assert only_root_can_change(host, release)


def test_an_interpreter_is_installed_and_never_run_by_root(host, call):
    script = f"#!/bin/sh\nid -u >>{CACHE}/go\necho 3.99.1\n"
    put(host, "/tmp/python.tar.gz", packed("python/", {"bin/python3.99": script}))
    digest = host.check_output("sha256sum /tmp/python.tar.gz").split()[0]
    params = {"url": "file:///tmp/python.tar.gz", "checksum": f"sha256:{digest}"}
    try:
        python = call("python", python="3.99", **params)["python"]
        assert python["executable"] == "/opt/flaskstack/python/3.99.1/bin/python3.99"
        assert only_root_can_change(host, "/opt/flaskstack")
        account = host.check_output(f"id -u {APP}-build")
        assert set(host.check_output(f"cat {CACHE}/go; rm {CACHE}/go").split()) == {account}
    finally:
        host.run("rm -rf /opt/flaskstack/python/3.99.1")


def test_an_interrupted_build_is_incomplete_and_repeated(host, install):
    """It stays confined while it runs."""
    folder, table = f"/srv/{APP}/environments/test-waits", f"inet flaskstack_{APP}-build"
    install("waits", background="interrupted")
    wait_for(lambda: host.run(f"ls {CACHE}/waits").rc == 0, 60)
    host.check_output("systemctl kill --signal=KILL interrupted")
    wait_for(lambda: host.run("systemctl is-active interrupted").rc != 0)
    assert host.run(f"nft list table {table}").rc == 0
    assert not host.file(folder).exists
    host.check_output(f"touch {CACHE}/go")
    assert install("waits") == {"changed": True}
    assert host.file(f"{folder}/.complete").exists
    assert host.run(f"pgrep -u {APP}-build").rc == 1
    assert host.run(f"nft list table {table}").rc != 0
    assert host.check_output(f"ls -A /srv/{APP}/environments | grep '^[.]'; true") == ""
