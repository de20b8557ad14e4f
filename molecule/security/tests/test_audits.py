"""What tools that others wrote say of a site that was set up with the defaults."""

from __future__ import annotations

import os

import pytest
import testinfra

from helpers import audits
from helpers.clients import live_web

APP_UNITS = ("sample-worker@1.service", "sample-scheduler@1.service")
OTHER_UNITS = (
    "nginx.service",
    "redis-server@sample-cache.service",
    "redis-server@sample-queue.service",
    "mariadb.service",
)
PUBLIC = [22, 80, 443]


def runner(host):
    """Return a function that runs a command on a host, and says what went wrong."""

    def run(command):
        done = host.run(command)
        assert done.rc == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    return run


@pytest.fixture
def run(host):
    """Return a function that runs a command on the host."""
    return runner(host)


@pytest.fixture
def elsewhere(host):
    """Return a function that runs a command on the other host, which has the tools that attack."""
    name = {"trixie": "bookworm", "bookworm": "trixie"}[host.backend.host]
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return runner(testinfra.get_host(f"ansible://{name}", ansible_inventory=inventory, sudo=True))


@pytest.fixture
def newer():
    """Return a function that runs a command on Debian 13, whose testssl.sh gives grades."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return runner(testinfra.get_host("ansible://trixie", ansible_inventory=inventory, sudo=True))


def test_the_site_is_up(site):
    assert site.get("/readyz").status_code == 200


def test_lynis_finds_a_hardened_host(run):
    """Without the tests that do not apply to it; docs/audits.md has the reason of each."""
    audits.install(run, "lynis")
    said = audits.lynis(run, audits.LYNIS_SKIPPED)
    assert said.warnings == []
    assert said.index >= 85, "\n".join(said.suggestions)


def test_ssh_audit_finds_only_what_is_documented(address):
    assert audits.undocumented_ssh(address) == []


def test_gixy_has_nothing_against_nginx(run):
    assert audits.gixy(run) == []


def test_only_three_ports_answer_another_host(host, elsewhere, address):
    audits.install(elsewhere, "nmap")
    assert audits.open_ports(elsewhere, address) == PUBLIC
    link_local = host.check_output("ip -6 -o addr show dev eth0 scope link").split()[3]
    assert audits.open_ports(elsewhere, link_local.split("/")[0] + "%eth0") == PUBLIC


def test_testssl_gives_an_a_and_finds_nothing_of_note(run, newer, address, https):
    """The certificate is trusted for the test, as one of a known CA would be."""
    assert https
    audits.install(newer, "testssl.sh")
    shown = run("cat /etc/nginx/certificates/sample/current/fullchain.pem")
    newer(f"cat >/root/ca.pem <<'PEM'\n{shown}\nPEM")
    said = audits.tls(newer, address, "localhost", "/root/ca.pem")
    assert said.grade in ("A", "A+"), said.reasons
    assert said.at_least("MEDIUM") == []


def test_units_of_the_app_are_confined(host, run):
    units = [live_web(host, "sample"), *APP_UNITS]
    figures = {unit: audits.exposure(run, unit) for unit in units}
    assert max(figures.values()) <= 1.5, figures


def test_services_beside_it_are_confined_as_far_as_they_work(run):
    figures = {unit: audits.exposure(run, unit) for unit in OTHER_UNITS}
    assert max(figures.values()) <= 2.5, figures
