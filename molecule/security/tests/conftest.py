"""Clients of the two sites, their secrets, and runs of playbooks."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import testinfra
from xdist.scheduler import LoadScopeScheduling

from helpers.clients import Site
from helpers.operator import Operator, Versions

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
# Logs in with the passwords in a file, since arguments are visible to all users and logged.
LOGIN = """
import json, socket
import pymysql

def mysql(user, password):
    try:
        pymysql.connect(user=user, password=password, unix_socket="/run/mysqld/mysqld.sock").close()
    except pymysql.err.OperationalError as error:
        return error.args[0] != 1045
    return True

def redis(name, password):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(f"/run/redis-sample-{name}/redis.sock")
        link.sendall(f"AUTH sample {password}\\r\\n".encode())
        return link.recv(100).startswith(b"+OK")

users = {"database": "sample", "migration": "sample_migrate"}
login = lambda name, word: mysql(users[name], word) if name in users else redis(name, word)
given = json.load(open("/root/passwords.json"))
print(json.dumps({name: [login(name, word) for word in words] for name, words in given.items()}))
"""


class ByHost(LoadScopeScheduling):
    """Run the tests of each host in order, and both hosts in parallel."""

    def _split_scope(self, nodeid):
        return re.search("ansible://([a-z]+)", nodeid)[1]


def pytest_xdist_make_scheduler(config, log):
    return ByHost(config, log)


@pytest.fixture
def run(host):
    """Return a function that runs a command on the host."""
    return host.check_output


@pytest.fixture(scope="module")
def inventory(host):
    """Return the directory of the host's inventory."""
    return FOLDER / "inventories" / host.backend.host


@pytest.fixture(scope="module")
def operator(inventory):
    """Return an operator of the host, which runs playbooks: `operator.play("deploy", …)`."""
    return Operator(str(inventory))


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """Return a function that creates a new version of the app."""
    return Versions(FOLDER / "app", tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def ca(host, tmp_path_factory):
    """Return a file with the self-signed certificate of the site."""
    file = tmp_path_factory.mktemp("site") / "certificate.pem"
    path = "/etc/nginx/certificates/sample/current/fullchain.pem"
    file.write_text(host.check_output("cat %s", path))
    return str(file)


@pytest.fixture(scope="module")
def site(address, ca):
    """Return a client of the site."""
    return Site(address, "localhost", ca=ca)


@pytest.fixture
def read_secrets(inventory):
    """Return a function that reads all secrets of the inventory by name."""
    files = inventory / "secrets"
    return lambda: {path.name[:-4]: path.read_text().strip() for path in files.glob("*.txt")}


@pytest.fixture
def accepted(host, tmp_path):
    """Return a function that returns which passwords are accepted, by the name of their secret."""

    def accepted(**passwords):
        file = tmp_path / "passwords.json"
        file.write_text(json.dumps(passwords))
        target = "/root/passwords.json"
        host.ansible("copy", f"src={file} dest={target} mode=0600", check=False, become=True)
        try:
            return json.loads(host.check_output("python3 -c %s", LOGIN))
        finally:
            host.check_output("rm -f %s", target)

    return accepted


@pytest.fixture
def run_elsewhere(host):
    """Return a function that runs a command on the other host, which scans this one."""
    name = {"trixie": "bookworm", "bookworm": "trixie"}[host.backend.host]
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return testinfra.get_host(
        f"ansible://{name}", ansible_inventory=inventory, sudo=True
    ).check_output
