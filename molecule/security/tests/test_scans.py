"""lynis and nmap find no problem on a site with default settings."""

from __future__ import annotations

from helpers import audits

# Scans take minutes, so they cover only Debian 13. They run in one direction only: nmap takes
# packets of a scan in the other direction for answers.
testinfra_hosts = ["ansible://trixie"]

PUBLIC = [22, 80, 443]


def test_lynis_reports_a_hardened_host(run):
    """Tests that do not apply are skipped for the reasons in docs/audits.md."""
    audits.install(run, "lynis")
    result = audits.lynis(run, audits.LYNIS_SKIPPED)
    assert result.warnings == []
    assert result.index >= 85, "\n".join(result.suggestions)


def test_only_three_ports_answer_another_host(run, run_elsewhere, address):
    audits.install(run_elsewhere, "nmap")
    link_local = run("ip -6 -o addr show dev eth0 scope link").split()[3].split("/")[0]
    for destination in (address, f"{link_local}%eth0"):
        assert audits.open_ports(run_elsewhere, destination) == PUBLIC
