"""Audit tools report no problem on a site with default settings."""

from __future__ import annotations

import pytest

from helpers import audits
from helpers.clients import live_web

UNITS = {  # highest accepted exposure, from 0 to 10
    "sample-worker@1.service": 1.5,
    "sample-scheduler@1.service": 1.5,
    "nginx.service": 2.5,
    "redis-server@sample-cache.service": 2.5,
    "redis-server@sample-queue.service": 2.5,
    "mariadb.service": 2.5,
}
PUBLIC = [22, 80, 443]


@pytest.fixture
def run(host):
    """Return a function that runs a command on the host."""
    return host.check_output


def test_lynis_reports_a_hardened_host(run):
    """Tests that do not apply are skipped for the reasons in docs/audits.md."""
    audits.install(run, "lynis")
    result = audits.lynis(run, audits.LYNIS_SKIPPED)
    assert result.warnings == []
    assert result.index >= 85, "\n".join(result.suggestions)


def test_ssh_audit_reports_only_documented_findings(address):
    assert audits.undocumented_ssh(address) == []


def test_gixy_finds_no_problem_in_nginx(run):
    assert audits.gixy(run) == []


def test_only_three_ports_answer_another_host(run, run_elsewhere, address):
    audits.install(run_elsewhere, "nmap")
    link_local = run("ip -6 -o addr show dev eth0 scope link").split()[3].split("/")[0]
    for destination in (address, f"{link_local}%eth0"):
        assert audits.open_ports(run_elsewhere, destination) == PUBLIC


def test_units_are_confined(host, run):
    units = UNITS | {live_web(host, "sample"): 1.5}
    found = {unit: audits.exposure(run, unit) for unit in units}
    assert {unit: level for unit, level in found.items() if level > units[unit]} == {}
