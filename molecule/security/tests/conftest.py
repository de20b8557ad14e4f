"""Clients of the two sites, their secrets, and runs of playbooks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import testinfra

from helpers import repository
from helpers.clients import Site
from helpers.operator import Operator

INVENTORIES = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventories")
NAME = "localhost"
# Logs in with the passwords in a file, since arguments are visible to all users and logged.
PROBE = """
import json, os, socket, sys
import pymysql

given = json.load(open("/root/probe.json"))

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
ask = lambda name, word: mysql(users[name], word) if name in users else redis(name, word)
print(json.dumps({name: [ask(name, word) for word in words] for name, words in given.items()}))
"""


@pytest.fixture(scope="module")
def inventory(host):
    """Return the directory of the host's inventory."""
    return INVENTORIES / host.backend.host


@pytest.fixture(scope="module")
def operator(inventory):
    """Return an operator of the host, which runs playbooks: `operator.play("deploy", …)`."""
    return Operator(str(inventory))


@pytest.fixture(scope="module")
def settings(host, inventory):
    """Return the host's inventory variables."""
    name = f"ansible://{host.backend.host}"
    own = testinfra.get_host(name, ansible_inventory=str(inventory))
    return own.ansible.get_variables()


@pytest.fixture(scope="module")
def https(settings):
    """Return whether nginx terminates TLS."""
    return settings.get("app_https", repository.defaults("app").get("app_https", False))


@pytest.fixture(scope="module")
def ca(host, tmp_path_factory):
    """Return a file with the self-signed certificate of the site."""
    file = tmp_path_factory.mktemp("site") / "certificate.pem"
    shown = "/etc/nginx/certificates/sample/current/fullchain.pem"
    file.write_text(host.check_output("cat %s", shown))
    return str(file)


@pytest.fixture(scope="module")
def plain_site(address):
    """Return a client over http, which redirects to https."""
    return Site(address, NAME)


@pytest.fixture(scope="module")
def site(address, plain_site, https, request):
    """Return a client over the scheme of the site."""
    return Site(address, NAME, ca=request.getfixturevalue("ca")) if https else plain_site


@pytest.fixture
def secrets(inventory):
    """Return every generated secret of the site by name."""
    return {file.stem: file.read_text().strip() for file in (inventory / "secrets").iterdir()}


@pytest.fixture
def diagnostics(site, secrets):
    """Return a function that sends a request with the diagnostics key."""

    def send(method, path, **options):
        headers = {"X-Api-Key": secrets["diagnostics_key"]} | options.pop("headers", {})
        return site.request(method, path, headers=headers, **options)

    return send


@pytest.fixture
def lets_in(host, tmp_path):
    """Return a function that returns which passwords are accepted, by the name of their secret."""

    def ask(**passwords):
        for name, text in (("probe.json", json.dumps(passwords)), ("probe.py", PROBE)):
            (tmp_path / name).write_text(text)
            source = f"src={tmp_path / name} dest=/root/{name} mode=0600"
            host.ansible("copy", source, check=False, become=True)
        try:
            return json.loads(host.check_output("python3 /root/probe.py"))
        finally:
            host.check_output("rm -f /root/probe.json /root/probe.py")

    return ask


@pytest.fixture
def read(inventory):
    """Return a function that reads all secrets of the inventory by name."""

    def files():
        paths = (inventory / "secrets").glob("*.txt")
        return {path.name.removesuffix(".txt"): path.read_text().strip() for path in paths}

    return files
