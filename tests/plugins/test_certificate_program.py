"""The renewal script on a host: what is due, what is active, and what is rolled back."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from helpers.certs import Authority
from helpers.imports import import_role_file

program = import_role_file("certificates/files/usr/local/lib/flaskstack/certificate.py")
UNAUTHORIZED = """\
2026/11/21 13:27:50 [INFO] [shop.example.org] acme: Trying to solve HTTP-01
2026/11/21 13:27:58 Could not obtain certificates:
\terror: one or more domains had a problem:
[shop.example.org] acme: error: 403 :: urn:ietf:params:acme:error:unauthorized :: no such page
"""


class Host:
    """The files of a host, with stubs of nginx, systemctl and lego that record their calls."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.site, self.authority = folder, folder / "site", Authority()
        for name in ("site", "state/lego", "bin"):
            (folder / name).mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.delenv("SERVICE_RESULT", raising=False)
        self.stub("systemctl")
        self.stub("nginx")
        self.stub("lego", 1, UNAUTHORIZED)

    def stub(self, name, code=0, message="", before=""):
        """Make a command exit with a code and a message."""
        path = self.folder / "bin" / name
        path.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{self.folder}/calls\n{before}\n'
            f"cat >&2 <<'END'\n{message}\nEND\nexit {code}\n"
        )
        path.chmod(0o755)

    def issue(self):
        """Make lego issue a certificate."""
        pair, to = self.authority.certify("shop.example"), "state/lego/certificates/shop.example"
        (self.folder / "new.crt").write_text(pair.chain)
        (self.folder / "new.key").write_text(pair.key)
        copies = [f"cp new.{kind} {to}.{kind}" for kind in ("crt", "key")]
        steps = [f"cd {self.folder}", "mkdir -p state/lego/certificates", *copies]
        self.stub("lego", before="\n".join([*steps, f"cp new.crt {to}.issuer.crt"]))

    def certificate(self, name, lived=0.0, days=90.0):
        """Install a certificate valid for `days`, of which the fraction `lived` has passed."""
        start = datetime.now(UTC) - timedelta(days=days * lived)
        pair = self.authority.certify("shop.example", start=start, end=start + timedelta(days=days))
        (self.site / name).mkdir()
        (self.site / name / "fullchain.pem").write_text(pair.chain)
        (self.site / name / "privkey.pem").write_text(pair.key)
        return self.site / name

    def program(self, wanted):
        """Return the program with the settings for a wanted certificate."""
        settings = {"app": "shop", "server": "https://acme/dir", "lego": ["lego", "run"]}
        settings |= {"source": wanted.partition("-")[0], "wanted": wanted, "environment": {}}
        settings |= {"folder": str(self.site), "state": str(self.folder / "state")}
        return program.Site(settings | {"metrics": str(self.folder / "shop.prom")})

    @property
    def current(self):
        return (self.site / "current").readlink().name

    @property
    def calls(self):
        return (self.folder / "calls").read_text().splitlines()

    def metric(self, name):
        text = (self.folder / "shop.prom").read_text()
        return int(re.search(rf'^flaskstack_certificate_{name}{{app="shop"}} (.+)', text, re.M)[1])


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


@pytest.mark.parametrize("days", [397, 6])
@pytest.mark.parametrize(("lived", "due"), [(0.65, False), (0.68, True)])
def test_a_certificate_is_due_with_a_third_of_its_lifetime_left(host, days, lived, due):
    host.certificate("acme-1", lived, days)
    assert host.program("acme-1").is_due == due
    assert host.program("acme-2").is_due


def test_nginx_is_reloaded_only_if_it_runs_and_the_certificate_changes(host):
    host.certificate("provided-1")
    host.stub("systemctl", 3)
    assert host.program("provided-1").activate()
    assert host.calls == ["systemctl is-active --quiet nginx"]
    host.stub("systemctl")
    host.certificate("provided-2")
    assert host.program("provided-2").activate()
    assert host.calls[-2:] == ["nginx -q -t", "systemctl reload nginx"]
    assert not host.program("provided-2").activate()


@pytest.mark.parametrize("broken", ["nginx", "systemctl"])
def test_a_certificate_that_nginx_rejects_is_rolled_back(host, broken):
    host.certificate("provided-1")
    host.program("provided-1").activate()
    host.certificate("provided-2")
    host.stub(broken, 1, "nginx: [emerg] no", before='[ "$1" = is-active ] && exit 0')
    with pytest.raises(program.CertificateError, match=r"nginx: \[emerg\] no"):
        host.program("provided-2").activate()
    assert host.current == "provided-1"


def test_the_fallback_is_active_until_the_server_issues_a_certificate(host):
    host.certificate("selfsigned-1")
    site = host.program("acme-1")
    assert site.activate()
    with pytest.raises(program.CertificateError) as failure:
        site.renew()
    assert str(failure.value) == (
        "https://acme/dir issued no certificate: Could not obtain certificates:; "
        "error: one or more domains had a problem:; [shop.example.org] acme: error: 403 :: "
        "urn:ietf:params:acme:error:unauthorized :: no such page"
    )
    assert host.current == "selfsigned-1"
    site.write_metrics()
    assert host.metric("is_fallback") == 1
    host.issue()
    site.renew()
    site.write_metrics()
    assert host.current.startswith("acme-1-")
    assert (site.is_due, host.metric("is_fallback")) == (False, 0)
    assert not (host.folder / "state/lego/certificates").exists(), "a copy of the key"


def test_a_certificate_that_nginx_rejected_is_not_requested_again(host):
    host.certificate("selfsigned-1")
    host.issue()
    site = host.program("acme-1")
    site.activate()
    host.stub("nginx", 1)
    for _ in range(2):
        with pytest.raises(program.CertificateError, match="nginx rejected"):
            site.renew()
    host.stub("nginx")
    site.renew()
    assert host.calls.count("lego run") == 1
    assert host.current.startswith("acme-1-")


def test_an_account_that_the_server_has_lost_is_registered_again(host):
    site = host.program("acme-1")
    (site.state / "lego/accounts/x").mkdir(parents=True)
    host.stub("lego", 1, "urn:ietf:params:acme:error:accountDoesNotExist")
    with pytest.raises(program.CertificateError, match="accountDoesNotExist"):
        site.renew()
    assert host.calls.count("lego run") == 2
    assert not (site.state / "lego/accounts").exists()


def test_the_host_extends_a_self_signed_certificate_with_its_key_and_names(host):
    chain = host.certificate("selfsigned-1", lived=0.7) / "fullchain.pem"
    before = x509.load_pem_x509_certificate(chain.read_bytes())
    site = host.program("selfsigned-1")
    host.stub("nginx", 1)
    with pytest.raises(program.CertificateError, match="nginx rejected"):
        site.renew()
    assert site.is_due
    host.stub("nginx")
    site.renew()
    after = x509.load_pem_x509_certificate(chain.read_bytes())
    assert not site.is_due
    assert after.issuer == after.subject == before.subject
    assert after.public_key() == before.public_key()
    assert after.serial_number != before.serial_number
    names = x509.SubjectAlternativeName
    shown = [one.extensions.get_extension_for_class(names) for one in (before, after)]
    assert shown[0] == shown[1]
    assert "systemctl reload nginx" in host.calls


def test_renewal_fails_two_weeks_before_a_provided_certificate_expires(host):
    host.certificate("provided-1", lived=0.8)
    host.program("provided-1").renew()
    host.certificate("provided-2", lived=0.9)
    with pytest.raises(program.CertificateError, match="The provided certificate expires on"):
        host.program("provided-2").renew()
    assert host.current == "provided-2"


def test_unused_certificates_are_removed_except_the_newest_of_each_source(host):
    for name in ("acme-1", "acme-2", "selfsigned-1", "provided-1", "provided-2", "provided-3"):
        host.certificate(name)
        if name.startswith("provided"):
            host.program(name).activate()
    left = {path.name for path in host.site.iterdir()}
    assert left == {"current", "acme-2", "selfsigned-1", "provided-2", "provided-3"}


def test_a_failure_is_reported_in_journal_and_metrics(host, capsys, monkeypatch):
    folder = host.certificate("selfsigned-1")
    site = host.program("acme-1")
    site.activate()
    site.report()
    assert host.metric("failed") == 0
    success = site.state / "success"
    os.utime(success, (1_700_000_000, 1_700_000_000))
    monkeypatch.setenv("SERVICE_RESULT", "timeout")
    site.report()
    assert "was not renewed. systemd reports: timeout" in capsys.readouterr().out
    site.reason.write_text("no such page\n")
    site.report()
    assert capsys.readouterr().out == "<3>The certificate of shop was not renewed. no such page\n"
    assert host.metric("failed") == 1
    assert host.metric("last_success_timestamp_seconds") == 1_700_000_000
    assert host.metric("expiry_timestamp_seconds") == int(program.lifetime(folder)[1])
