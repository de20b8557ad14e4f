"""Audit tools report no problem on a site with default settings."""

from __future__ import annotations

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


def test_ssh_audit_reports_only_documented_findings(address):
    assert audits.undocumented_ssh(address) == []


def test_gixy_finds_no_problem_in_nginx(run):
    assert audits.gixy(run) == []


def test_units_are_confined(host, run):
    units = UNITS | {live_web(host, "sample"): 1.5}
    found = {unit: audits.exposure(run, unit) for unit in units}
    assert {unit: level for unit, level in found.items() if level > units[unit]} == {}
