"""testssl.sh finds no problem in the site's TLS."""

from __future__ import annotations

from pathlib import Path

from helpers import audits

# An audit takes minutes, so it covers only Debian 12, which has the older OpenSSL and nginx.
testinfra_hosts = ["ansible://bookworm"]


def test_testssl_gives_grade_a(address, ca, run_elsewhere):
    """The scanner trusts the certificate, as if a public CA had issued it."""
    audits.install(run_elsewhere, "testssl.sh")
    found = audits.tls(run_elsewhere, address, "localhost", Path(ca).read_text())
    assert found.grade in ("A", "A+"), found.reasons
    assert found.at_least("MEDIUM") == []
