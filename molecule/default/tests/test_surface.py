"""Open ports, and no secrets in command lines or logs."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

PUBLIC = {22, 80, 443}
TRIED = [21, 22, 25, 53, 80, 111, 443, 3306, 4444, 5000, 6379, 6380, 8000, 8080, 9000, 11211, 33060]
SECRET = ("SECRET_KEY", "DIAGNOSTICS_KEY", "DATABASE_URL", "CACHE_URL", "QUEUE_URL")


@pytest.fixture
def secrets(host, environment, settings):
    """Return every generated secret by name."""
    found = {name: urlsplit(environment[name]).password or environment[name] for name in SECRET}
    return found | {"migration": settings["app_migration_password"]}


def test_only_ssh_http_and_https_are_open(address):
    reached = set()
    for port in TRIED:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                reached.add(port)
    assert reached == PUBLIC


def test_nothing_else_listens_on_a_public_address(host):
    listening = set()
    for line in host.check_output("ss -H -l -t -u -n").splitlines():
        address, port = line.split()[4].rsplit(":", 1)
        if not address.startswith(("127.", "[::1]")):
            listening.add(int(port))
    assert listening == PUBLIC


def test_no_secret_in_any_command_line(host, secrets):
    commands = host.check_output("sh -c 'cat /proc/[0-9]*/cmdline 2>/dev/null' | tr '\\0' ' '")
    assert "gunicorn" in commands
    assert [name for name, value in secrets.items() if value in commands] == []


def test_no_secret_in_any_log(host, secrets):
    # Search on the controller, since sudo would log the patterns.
    files = "find /var/log -type f -not -path '*/journal/*' -exec cat {} +"
    logs = host.check_output(f"(journalctl --no-pager --output cat; {files}) | tr -cd '[:print:]'")
    assert "gunicorn" in logs
    assert [name for name, value in secrets.items() if value in logs] == []


def test_only_the_app_reads_its_secrets(host):
    assert host.run("sudo -u www-data cat /etc/sample/current/environment").failed
    assert host.run("sudo -u redis cat /etc/sample/current/environment").failed
    assert host.run("sudo -u sample cat /etc/sample/current/environment").succeeded


def test_only_root_logs_in_to_mysql_as_root(host):
    assert host.run("mysql -e 'SELECT 1'").succeeded
    assert host.run("sudo -u www-data mysql -u root -e 'SELECT 1'").failed
