"""Certificates from an ACME server (pebble): issue, renewal, failure, change and removal.

The order of the tests matters: later ones change the host.
"""

from __future__ import annotations

import json
import re
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from helpers.audits import exposure
from helpers.certs import Authority
from helpers.clients import journal
from helpers.load import Load, any_certificate
from helpers.wait import wait_for

FOLDER = "/etc/nginx/certificates/shop"
METRICS = "/var/lib/flaskstack/metrics/shop_certificate.prom"
NAMES = {"shop.example.org", "www.shop.example.org"}
TOKEN = "dop_v1_2f9cc5de0a1b4c7e"  # DNS API token; the stub server records it
ROOT = "https://localhost:15000/roots/0"  # created when pebble starts
PLAYBOOK = "../molecule/certificates/converge"


@pytest.fixture
def served(address):
    """Return a function that returns the certificate that nginx serves for a name.

    A reload takes a moment, so a test that changes the certificate must wait.
    """

    def served(name="shop.example.org", context=None):
        with (
            socket.create_connection((address, 443), 5) as plain,
            (context or any_certificate()).wrap_socket(plain, server_hostname=name) as safe,
        ):
            return x509.load_der_x509_certificate(safe.getpeercert(binary_form=True))

    return served


@pytest.fixture
def metric(host):
    """Return a function that returns a metric of the certificate."""

    def metric(name):
        line = host.check_output("grep %s %s", f"^flaskstack_certificate_{name}{{", METRICS)
        return float(line.split()[-1])

    return metric


@pytest.fixture
def renew(host):
    """Return a function that runs the renewal unit and returns its exit status."""

    def renew(force=True):
        if force:  # rename the certificate, as if the settings had changed
            host.check_output(
                "cd %s && other=acme-other-$(date +%%s%%N)"
                " && mv $(readlink current) $other && ln -sfn $other current",
                FOLDER,
            )
        return host.run("systemctl start shop-certificate.service").rc

    return renew


@pytest.fixture
def logged_error(host):
    """Return a function that returns the error that the unit has logged during this test."""
    begin = host.check_output("date '+%F %T.%6N'")
    errors = "journalctl --unit shop-certificate.service --priority err --output cat --quiet"
    return lambda: host.check_output(f"{errors} --grep renewed --since %s", begin)


def names_of(certificate):
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName)}


def pebble(host, path):
    """Return a response of pebble's management interface."""
    return host.check_output("curl --silent --fail --cacert /srv/pebble/cert.pem %s", path)


def orders(host):
    """Return the number of requested certificates."""
    return len(journal(host, "pebble.service", grep=lambda line: "/order-plz" in line))


def test_the_site_serves_the_issued_certificate_and_its_chain_for_all_names(host, served):
    trusting = ssl.create_default_context(cadata=pebble(host, ROOT))
    certificate = served(context=trusting)
    assert "Pebble Intermediate" in certificate.issuer.rfc4514_string()
    assert names_of(certificate) == NAMES
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert served("www.shop.example.org", trusting) == certificate


def test_only_root_can_read_keys(host):
    keys = host.check_output(
        f"find {FOLDER} /var/lib/flaskstack -name '*.key' -o -name privkey.pem"
    )
    assert keys
    for key in keys.split():
        reads = host.run(f"setpriv --reuid=www-data --clear-groups cat {key}")
        assert "Permission denied" in reads.stderr
    modes = host.check_output(f"find {FOLDER} -name privkey.pem -printf '%m %u\\n' | sort -u")
    assert modes == "600 root"


def test_no_other_timer_renews(host):
    assert host.service("shop-certificate.timer").is_enabled
    timers = host.check_output("systemctl list-timers --all --no-legend --plain")
    assert len(re.findall(r"certificate|lego|certbot|acme", timers)) == 2, timers  # timer and unit
    delay = host.check_output("systemctl show -P RandomizedDelayUSec shop-certificate.timer")
    assert delay == "1h"
    assert not host.run("grep -rlE 'lego|certbot' /etc/cron*").stdout


def test_the_unit_is_in_a_sandbox(host):
    assert exposure(host.check_output, "shop-certificate.service") <= 2.5


def test_metrics_report_expiry_and_last_success(served, metric):
    assert metric("expiry_timestamp_seconds") == served().not_valid_after_utc.timestamp()
    assert metric("last_success_timestamp_seconds") > 1_700_000_000
    assert (metric("failed"), metric("is_fallback")) == (0, 0)


def test_a_renewal_under_load_fails_no_request(address, served, renew):
    before = served()
    options = {"rate": 50, "writes": 0, "form": False}
    with Load(f"https://{address}", name="shop.example.org", **options) as load:
        assert renew() == 0
        wait_for(lambda: served() != before, 5)
    assert load.outcomes.keys() == {"GET 200"}, load.report()
    assert len(load.answers) > 50


def restart_pebble(host, lifetime):
    """Restart pebble, which loses its accounts and CA key; `lifetime` is in seconds."""
    config = json.loads(host.file("/srv/pebble/config.json").content_string)
    config["pebble"]["certificateValidityPeriod"] = lifetime
    host.check_output("echo %s >/srv/pebble/config.json", json.dumps(config))
    host.check_output("systemctl restart pebble")
    wait_for(lambda: pebble(host, ROOT))


def test_short_lived_certificates_renew_and_a_lost_account_is_recreated(host, served, renew):
    before = served()
    restart_pebble(host, lifetime=18)
    assert renew() == 0, journal(host, "shop-certificate.service")[-5:]
    first = wait_for(lambda: (now := served()) != before and now)
    assert (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() <= 19
    assert renew(force=False) == 0
    assert served() == first, "not due yet"

    def renewed():
        assert renew(force=False) == 0
        return served() != first

    wait_for(renewed, 60, every=2)
    last = served()
    restart_pebble(host, lifetime=90 * 86400)
    assert renew() == 0
    wait_for(lambda: served() != last)


def test_a_failed_renewal_is_reported_and_the_previous_certificate_stays(
    host, served, renew, metric, logged_error
):
    before, success = served(), metric("last_success_timestamp_seconds")
    host.check_output("systemctl stop pebble")
    try:
        assert renew() != 0
        assert host.check_output("systemctl is-failed shop-certificate.service") == "failed"
        error = logged_error()
        assert "was not renewed" in error
        assert "https://localhost:14000/dir" in error
        assert "connection refused" in error
        wait_for(lambda: metric("failed") == 1)
        assert metric("last_success_timestamp_seconds") == success
        assert served() == before
    finally:
        host.check_output("systemctl start pebble")
    wait_for(lambda: pebble(host, ROOT))
    assert renew() == 0
    assert metric("failed") == 0
    wait_for(lambda: served() != before)


def test_a_certificate_that_nginx_rejects_is_rolled_back(host, served, renew, logged_error):
    before = served()
    broken = "/etc/nginx/conf.d/broken.conf"
    host.check_output(f"echo 'nonsense;' >{broken}")
    try:
        assert renew() != 0
        assert served() == before
        assert re.search("nginx rejected .*nonsense", logged_error())
    finally:
        host.check_output(f"rm {broken}")
    host.check_output("nginx -t")
    orders_before = orders(host)
    assert renew(force=False) == 0
    wait_for(lambda: served() != before)
    assert orders(host) == orders_before, "an order was made instead of activating the certificate"


def test_a_provided_certificate_is_served_and_a_second_run_changes_nothing(
    operator, address, served, tmp_path
):
    authority, file = Authority(), tmp_path / "site.pem"
    pair = authority.certify(*NAMES)
    file.write_text(pair.chain + authority.pem)
    wanted = {
        "app_certificate": "provided",
        "certificates_provided_certificate": str(file),
        "certificates_provided_key": pair.key,  # the key itself, as from a vault
    }
    options = {"rate": 20, "writes": 0, "form": False}
    with Load(f"https://{address}", name="shop.example.org", **options) as load:
        done = operator.play(PLAYBOOK, "--diff", **wanted)
    assert load.outcomes.keys() == {"GET 200"}, load.report()
    assert done.code == 0, done.output
    assert pair.key.splitlines()[1] not in done.output
    wait_for(lambda: "O=authority" in served().issuer.rfc4514_string())
    again = operator.play(PLAYBOOK, **wanted)
    assert (again.code, again.changed) == (0, 0), again.output


def test_switching_back_to_acme_requests_no_new_certificate(host, operator, served):
    assert (orders_before := orders(host)) > 0
    done = operator.play(PLAYBOOK)
    assert done.code == 0, done.output
    wait_for(lambda: "Pebble Intermediate" in served().issuer.rfc4514_string())
    assert orders(host) == orders_before, "a valid certificate was ordered again"


def test_the_play_fails_with_the_servers_reason_and_the_site_stays_up(operator, served):
    before = served()
    done = operator.play(PLAYBOOK, app_domains=["shop.example.org", "missing.example.org"])
    assert done.code != 0
    assert done.says("https://localhost:14000/dir issued no certificate")
    assert "urn:ietf:params:acme:error:" in done.output
    assert served() == before


def test_a_wildcard_certificate_over_dns_does_not_expose_the_token(host, operator, served):
    wanted = {
        "app_domains": ["shop.example.org", "*.shop.example.org"],
        "certificates_acme_challenge": "dns-01",
        "certificates_acme_dns_token": TOKEN,
    }
    done = operator.play(PLAYBOOK, "--diff", **wanted)
    assert done.code == 0, done.output
    wait_for(lambda: names_of(served()) == {*wanted["app_domains"]})
    seen = json.loads(host.file("/srv/dns/seen.json").content_string)
    assert {entry["token"] for entry in seen} == {TOKEN}
    assert [entry for entry in seen if entry["shown"]] == []
    assert [entry["request"].split()[0] for entry in seen].count("DELETE") == len(seen) / 2
    assert TOKEN not in done.output
    pattern = f"[{TOKEN[0]}]{TOKEN[1:]}"  # does not match this command's own line in the journal
    assert host.run("journalctl --no-pager | grep -c %s", pattern).stdout == "0\n"
    kept = host.check_output("grep -rl %s /etc /var/lib/flaskstack /usr/local", pattern)
    assert kept == "/etc/flaskstack/certificates/shop/dns_token"
    assert host.file(kept).mode == 0o600


def test_a_self_signed_certificate_covers_addresses_and_the_token_is_removed(
    host, operator, served, address
):
    wanted = {"app_certificate": "selfsigned", "app_domains": ["shop.example.org", address]}
    done = operator.play(PLAYBOOK, **wanted)
    assert done.code == 0, done.output
    wait_for(lambda: served().issuer == served().subject)
    names = served().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == [address]
    assert not host.file("/etc/flaskstack/certificates/shop/dns_token").exists


def test_removal_leaves_no_files_or_units(host, operator):
    done = operator.play("../molecule/certificates/remove")
    assert done.code == 0, done.output
    left = host.check_output(
        "find /etc /var/lib/flaskstack /usr/local -path '*shop*' -not -path '/etc/nginx/sites*'"
    )
    assert left == ""
    assert host.run("systemctl list-units --all --no-legend 'shop-certificate*'").stdout == ""
    again = operator.play("../molecule/certificates/remove")
    assert (again.code, again.changed) == (0, 0), again.output
