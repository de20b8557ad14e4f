"""The program that keeps a certificate on the host: what is due, what is in use, what goes back."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from helpers.certs import Authority
from helpers.imports import import_role_file

program = import_role_file("certificates/files/usr/local/lib/flaskstack/certificate.py")
NAMES = ["shop.example.org", "www.shop.example.org"]
# lego's own words.
REFUSED = """\
2026/11/21 13:27:50 [INFO] [shop.example.org] acme: Trying to solve HTTP-01
2026/11/21 13:27:58 [INFO] Unable to deactivate the authorization: https://localhost/authZ/1
2026/11/21 13:27:58 Could not obtain certificates:
\terror: one or more domains had a problem:
[shop.example.org] acme: error: 403 :: urn:ietf:params:acme:error:unauthorized :: no such page
"""


@pytest.fixture(scope="module")
def authority():
    return Authority()


class Host:
    """A host's files, with nginx, systemctl and lego as small scripts that note their calls."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        for name in ("site", "state/lego", "bin"):
            (folder / name).mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        self.says("systemctl")
        self.says("nginx")
        self.says("lego", 1, REFUSED)

    def says(self, name, code=0, words="", before=""):
        """Let a command end with a code and some words."""
        path = self.folder / "bin" / name
        path.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{self.folder}/calls\n{before}\n'
            f"cat >&2 <<'END'\n{words}\nEND\nexit {code}\n"
        )
        path.chmod(0o755)

    def gives(self, pair):
        """Let the ACME server give a certificate."""
        made = self.folder / "state/lego/certificates"
        (self.folder / "given.crt").write_text(pair.chain)
        (self.folder / "given.key").write_text(pair.key)
        names = "shop.example.org.crt", "shop.example.org.issuer.crt"
        copies = [f"cp {self.folder}/given.crt {made}/{name}" for name in names]
        copies.append(f"cp {self.folder}/given.key {made}/shop.example.org.key")
        self.says("lego", before="\n".join([f"mkdir -p {made}", *copies]))

    def settings(self, source="selfsigned", names=NAMES, **changed):
        """Return settings of the role."""
        acme = {
            "directory": "https://acme/dir",
            "ca": "",
            "email": "a@b.cd",
            "challenge": "http-01",
            "webroot": "/w",
        }
        return program.Settings(
            **{
                "app": "shop",
                "source": source,
                "names": list(names),
                "folder": self.folder / "site",
                "state": self.folder / "state",
                "metrics": self.folder / "shop.prom",
                "key": "ecdsa",
                "provided": "provided-1" if source == "provided" else "",
                "acme": acme,
            }
            | changed
        )

    def put(self, folder, pair, current=False, order=None):
        """Put a certificate on the host."""
        place = self.folder / "site" / folder
        place.mkdir()
        (place / "fullchain.pem").write_text(pair.chain)
        (place / "privkey.pem").write_text(pair.key)
        if order:
            (place / "order.json").write_text(json.dumps(order))
        if current:
            (self.folder / "site/current").symlink_to(folder)

    @property
    def used(self):
        """The folder that nginx goes by."""
        return (self.folder / "site/current").readlink().name

    @property
    def calls(self):
        """Which commands were run."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def metric(self, name):
        """Return a figure that was written for the exporter."""
        lines = (self.folder / "shop.prom").read_text().splitlines()
        (value,) = (
            line.split()[-1]
            for line in lines
            if line.startswith(f'flaskstack_certificate_{name}{{app="shop"}} ')
        )
        return float(value)


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def lived(part, days=90.0):
    """Return start and end of a certificate that has lived a part of its days."""
    start = datetime.now(UTC) - timedelta(days=days * part)
    return {"start": start, "end": start + timedelta(days=days)}


ORDER = {"directory": "https://acme/dir", "key": "ecdsa"}


def test_selfsigned_is_made_once_with_all_names_and_a_key_of_root_alone(host):
    settings = host.settings(names=["shop.example", "127.0.0.1", "::1"])
    assert program.prepare(settings, check=True)
    assert not (host.folder / "site/current").exists()
    assert program.prepare(settings)
    made = program.in_use(settings)
    assert (made.source, made.names) == ("selfsigned", {"shop.example", "127.0.0.1", "::1"})
    assert (made.folder / "privkey.pem").stat().st_mode & 0o777 == 0o600
    assert (made.folder.stat().st_mode & 0o777, program.prepare(settings)) == (0o700, False)
    text = subprocess.check_output(
        ["openssl", "x509", "-noout", "-text", "-in", made.folder / "fullchain.pem"], text=True
    )
    assert "CA:FALSE" in text
    assert "prime256v1" in text


def test_selfsigned_is_made_anew_for_other_names(host):
    program.prepare(host.settings())
    before = host.used
    assert program.prepare(host.settings(names=["other.example"]))
    assert program.in_use(host.settings()).names == {"other.example"}
    assert (host.folder / "site" / before).is_dir(), "to go back to"


@pytest.mark.parametrize("days", [397, 6, 0.01])
def test_a_new_one_is_due_with_a_third_of_its_life_left(host, authority, days):
    host.put("selfsigned-1", authority.certify(*NAMES, **lived(0.65, days)), current=True)
    assert program.why_due(host.settings()) == ""
    host.put("selfsigned-2", authority.certify(*NAMES, **lived(0.68, days)))
    program.point(host.settings(), host.folder / "site/selfsigned-2")
    assert program.why_due(host.settings()).startswith("it ends on")


def test_nginx_tests_and_reads_what_is_new(host):
    program.prepare(host.settings())
    assert host.calls[-2:] == ["nginx -q -t", "systemctl reload nginx"]


def test_nothing_is_reloaded_before_nginx_runs(host):
    host.says("systemctl", 3)
    program.prepare(host.settings())
    assert [call for call in host.calls if "nginx -q" in call or "reload" in call] == []


@pytest.mark.parametrize("broken", ["nginx", "systemctl"])
def test_what_nginx_does_not_take_goes_back(host, broken):
    program.prepare(host.settings())
    before = host.used
    host.says(broken, 1, "nginx: [emerg] no", before='[ "$1" = is-active ] && exit 0')
    with pytest.raises(program.Problem, match=r"The one before is in use again.*no"):
        program.prepare(host.settings(names=["other.example"]))
    assert host.used == before


def test_a_placeholder_serves_until_acme_answers(host, authority):
    settings = host.settings("acme")
    assert program.prepare(settings)
    placeholder = host.used
    assert placeholder.startswith("selfsigned-")
    assert not program.prepare(settings)
    with pytest.raises(program.Problem, match=r"shop\.example\.org: \[shop.*no such page$"):
        program.renew(settings)
    assert host.used == placeholder
    assert host.metric("placeholder") == 1
    host.gives(authority.certify(*NAMES))
    program.renew(settings)
    assert host.used.startswith("acme-")
    assert (program.why_due(settings), host.metric("placeholder")) == ("", 0)
    assert not (settings.state / "lego/certificates").exists(), "no key is left there"
    for name in ("fullchain.pem", "privkey.pem"):
        assert (settings.folder / host.used / name).stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_failed_in_nginx_is_not_asked_for_again(host, authority):
    settings = host.settings("acme")
    program.prepare(settings)
    host.gives(authority.certify(*NAMES))
    host.says("nginx", 1)
    for _ in range(2):
        with pytest.raises(program.Problem, match="nginx did not take"):
            program.renew(settings)
    assert sum(call.startswith("lego") for call in host.calls) == 1


def test_an_acme_certificate_in_use_stays_while_a_new_one_is_asked_for(host, authority):
    host.put("acme-1", authority.certify("old.example.org"), current=True, order=ORDER)
    settings = host.settings("acme")
    assert not program.prepare(settings)
    assert "old.example.org" in program.why_due(settings)


def test_another_server_or_kind_of_key_is_another_certificate(host, authority):
    host.put("acme-1", authority.certify(*NAMES), current=True, order=ORDER)
    assert program.why_due(host.settings("acme")) == ""
    assert "kind of key" in program.why_due(host.settings("acme", key="rsa"))


def test_an_account_that_the_server_forgot_is_made_again(host):
    settings = host.settings("acme")
    (settings.state / "lego/accounts/x").mkdir(parents=True)
    host.says("lego", 1, "urn:ietf:params:acme:error:accountDoesNotExist")
    with pytest.raises(program.Problem, match="accountDoesNotExist"):
        program.renew(settings)
    assert sum(call.startswith("lego") for call in host.calls) == 2
    assert not (settings.state / "lego/accounts").exists()


def test_the_token_is_named_not_given(host):
    acme = host.settings("acme").acme | {
        "challenge": "dns-01",
        "resolvers": ["127.0.0.1:53"],
        "token": "/etc/token",
        "api": "http://api",
        "patience": 60,
    }
    host.says("lego", 1, before=f"env >{host.folder}/env")
    with pytest.raises(program.Problem):
        program.renew(host.settings("acme", acme=acme))
    (call,) = (call for call in host.calls if call.startswith("lego"))
    assert "--dns digitalocean --dns.resolvers 127.0.0.1:53" in call
    assert "DO_AUTH_TOKEN_FILE=/etc/token" in (host.folder / "env").read_text()


def test_provided_is_put_in_use_and_complains_when_it_ends(host, authority):
    host.put("provided-1", authority.certify(*NAMES, **lived(0.5)))
    settings = host.settings("provided")
    assert program.prepare(settings, check=True)
    assert program.prepare(settings)
    assert (host.used, program.prepare(settings)) == ("provided-1", False)
    program.renew(settings)
    host.put("provided-2", authority.certify(*NAMES, **lived(0.9)))
    settings = host.settings("provided", provided="provided-2")
    assert program.prepare(settings)
    with pytest.raises(program.Problem, match="The certificate that was provided ends on"):
        program.renew(settings)


def test_provided_with_anothers_key_changes_nothing(host, authority):
    program.prepare(host.settings())
    before = host.used
    one, other = authority.certify(*NAMES), authority.certify(*NAMES)
    host.put("provided-1", type(one)(one.chain, other.key))
    with pytest.raises(program.Problem, match="not on the host"):
        program.prepare(host.settings("provided"))
    assert host.used == before


def test_what_is_not_needed_any_more_goes(host, authority):
    for number in range(3):
        days = lived(0.1 * (3 - number))
        host.put(f"acme-{number}", authority.certify(*NAMES, **days), order=ORDER)
    program.prepare(host.settings(names=["a.example"]))
    program.prepare(host.settings(names=["b.example"]))
    program.prepare(host.settings(names=["c.example"]))
    names = sorted(path.name for path in (host.folder / "site").iterdir() if path.is_dir())
    assert [name.partition("-")[0] for name in names] == [
        "acme",
        "current",
        "selfsigned",
        "selfsigned",
    ]
    assert names[0] == "acme-2"


def test_a_failure_is_told_to_people_and_machines(host, capsys):
    settings = host.settings("acme")
    program.prepare(settings)
    assert host.metric("failed") == 0
    assert host.metric("last_success_timestamp_seconds") > 1_700_000_000
    (settings.state / "success").write_text("1700000000")
    settings.reason.write_text("the server said no\n")
    program.failed(settings)
    said = capsys.readouterr().out
    assert said.startswith("<3>The certificate of shop was not renewed. The one in use is selfsign")
    assert "the server said no" in said
    assert host.metric("failed") == 1
    assert host.metric("last_success_timestamp_seconds") == 1_700_000_000
    assert host.metric("expiry_timestamp_seconds") == program.in_use(settings).end


def test_a_key_with_a_passphrase_asks_nobody(host, authority):
    host.put("provided-1", authority.certify(*NAMES, passphrase=b"secret"))
    assert program.look(host.folder / "site/provided-1") is None
    assert ssl.OPENSSL_VERSION_INFO >= (3, 0)


@pytest.mark.parametrize("kept", ["selfsigned-1", "selfsigned-2"])
def test_one_of_the_same_second_is_not_newer_than_what_is_in_use(host, authority, kept):
    certificate = authority.certify(*NAMES, **lived(0.1))
    for name in ("selfsigned-1", "selfsigned-2"):
        host.put(name, certificate)
    program.prune(host.settings(), {host.folder / "site" / kept})
    assert [path.name for path in (host.folder / "site").glob("selfsigned-*")] == [kept]
