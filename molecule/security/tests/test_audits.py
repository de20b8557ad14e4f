"""Audit tools report no problem on a site with default settings."""

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
    """Return a function that runs a command on a host and fails with its output."""

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
def other_host(host):
    """Return a function that runs a command on the other host, which has the scanners."""
    name = {"trixie": "bookworm", "bookworm": "trixie"}[host.backend.host]
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return runner(testinfra.get_host(f"ansible://{name}", ansible_inventory=inventory, sudo=True))


def test_lynis_reports_a_hardened_host(run):
    """Tests that do not apply are skipped for the reasons in docs/audits.md."""
    audits.install(run, "lynis")
    said = audits.lynis(run, audits.LYNIS_SKIPPED)
    assert said.warnings == []
    assert said.index >= 85, "\n".join(said.suggestions)


def test_ssh_audit_reports_only_documented_findings(address):
    assert audits.undocumented_ssh(address) == []


def test_gixy_finds_no_problem_in_nginx(run):
    assert audits.gixy(run) == []


def test_only_three_ports_answer_another_host(host, other_host, address):
    audits.install(other_host, "nmap")
    assert audits.open_ports(other_host, address) == PUBLIC
    link_local = host.check_output("ip -6 -o addr show dev eth0 scope link").split()[3]
    assert audits.open_ports(other_host, link_local.split("/")[0] + "%eth0") == PUBLIC


def test_units_of_the_app_are_confined(host, run):
    units = [live_web(host, "sample"), *APP_UNITS]
    figures = {unit: audits.exposure(run, unit) for unit in units}
    assert max(figures.values()) <= 1.5, figures


def test_other_units_are_confined(run):
    figures = {unit: audits.exposure(run, unit) for unit in OTHER_UNITS}
    assert max(figures.values()) <= 2.5, figures
