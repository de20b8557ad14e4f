"""testssl.sh finds no problem in the site's TLS."""

from __future__ import annotations

import os

import testinfra

from helpers import audits

# One run takes minutes. Debian 12 has the older OpenSSL and nginx.
testinfra_hosts = ["ansible://bookworm"]


def test_testssl_gives_grade_a(host, address, https):
    """The test trusts the certificate, as if a public CA had issued it."""
    assert https
    shown = host.check_output("cat /etc/nginx/certificates/sample/current/fullchain.pem")
    # testssl.sh runs on the other host, since that of Debian 12 gives no grades.
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    scanner = testinfra.get_host("ansible://trixie", ansible_inventory=inventory, sudo=True)
    audits.install(scanner.check_output, "testssl.sh")
    scanner.check_output("printf '%%s\\n' %s >/root/ca.pem", shown)
    found = audits.tls(scanner.check_output, address, "localhost", "/root/ca.pem")
    assert found.grade in ("A", "A+"), found.reasons
    assert found.at_least("MEDIUM") == []
