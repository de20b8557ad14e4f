"""What of a certificate's settings is refused, and what the program on the host is told."""

from __future__ import annotations

import json

import pytest

from helpers.certs import Authority

ACME = {
    "app_domains": ["shop.your-domain.org"],
    "app_certificate": "acme",
    "certificates_acme_email": "ada@your-domain.org",
}
DNS = ACME | {
    "certificates_acme_challenge": "dns-01",
    "certificates_acme_dns_token": "dop_v1_0123456789abcdef",
}
OTHER_SERVER = {"certificates_acme_directory": "https://ca.intern/dir"}
WILDCARD = {"app_domains": ["shop.your-domain.org", "*.shop.your-domain.org"]}
LOCAL = {"app_domains": ["127.0.0.1", "localhost", "[::1]"]}
TWO_EDGES = {"groups": {"edge": ["one", "two"], "all": ["one", "two"]}}


@pytest.fixture
def refused(evaluate):
    """Return a function that gives the problems of settings."""
    return lambda **settings: evaluate("certificates", "__certificates_problems", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        LOCAL,
        ACME,
        DNS | WILDCARD | TWO_EDGES,
        ACME | OTHER_SERVER | {"app_domains": ["shop.internal"]},
        ACME | LOCAL | {"app_https": False},
    ],
)
def test_settings_that_work(refused, settings):
    assert refused(**settings) == []


@pytest.mark.parametrize(
    ("settings", "beginning", "word"),
    [
        (
            ACME | {"certificates_acme_email": ""},
            "certificates_acme_email is",
            "an address of yours",
        ),
        (ACME | LOCAL, "app_domains is [127.0.0.1, localhost, [::1]]: ", "full names"),
        (ACME | {"app_domains": ["example.com"]}, "app_domains is [example.com]", "Let's Encrypt"),
        (ACME | {"app_domains": ["a.shop.test"]}, "app_domains is [a.shop.test]", "Let's Encrypt"),
        (ACME | WILDCARD, "certificates_acme_challenge is http-01: ", "must be dns-01"),
        (ACME | TWO_EDGES, "certificates_acme_challenge is http-01: ", "one, two"),
        (
            DNS | {"certificates_acme_dns_token": ""},
            "certificates_acme_dns_token: must be",
            "token",
        ),
        (
            ACME | {"certificates_acme_directory": "http://ca.intern/dir"},
            "certificates_acme_directory is http://ca.intern/dir: ",
            "with https",
        ),
        (ACME | {"certificates_acme_ca": "/none.pem"}, "certificates_acme_ca is /none", "a file"),
        (ACME | {"certificates_acme_challenge": "dns"}, "certificates_acme_challenge is", "dns-01"),
        ({"certificates_acme_dns_api": "api"}, "certificates_acme_dns_api is api: ", "a URL"),
        (
            {"certificates_acme_dns_resolvers": ["1.1.1.1"]},
            "certificates_acme_dns_resolvers is [1.1.1.1]: ",
            "their port",
        ),
        ({"certificates_acme_dns_patience": 5}, "certificates_acme_dns_patience is 5", "10 to 600"),
        ({"certificates_key": "ed25519"}, "certificates_key is ed25519", "ecdsa or rsa"),
        (
            {"app_certificate": "provided"},
            "certificates_provided_certificate: and",
            "both be files",
        ),
    ],
)
def test_settings_that_cannot_work(refused, settings, beginning, word):
    (message,) = refused(**settings)
    assert message.startswith(beginning)
    assert word in message


def test_provided_is_compared_with_key_and_names_and_none_of_it_is_shown(refused, tmp_path):
    authority = Authority()
    one, other = authority.certify("shop.example"), authority.certify("shop.example")
    path = tmp_path / "site.pem"
    path.write_text(one.chain)
    given = {
        "app_certificate": "provided",
        "app_domains": ["shop.example"],
        "certificates_provided_certificate": str(path),
        "certificates_provided_key": one.key,
    }
    assert refused(**given) == []
    (message,) = refused(**given | {"certificates_provided_key": other.key})
    assert "the key is not this certificate's" in message
    assert "PRIVATE" not in message
    (message,) = refused(**given | {"app_domains": ["shop.example", "b.example"]})
    assert "it is for shop.example, and not for b.example" in message


def test_the_program_is_told_names_as_certificates_have_them(render):
    told = json.loads(
        render("certificates", "etc/flaskstack/certificates/settings.json.j2", **LOCAL)
    )
    assert told["names"] == ["127.0.0.1", "localhost", "::1"]
    assert told["source"] == "selfsigned"


def test_the_program_is_told_where_the_token_is_and_only_where_it_is_used(render):
    settings = "etc/flaskstack/certificates/settings.json.j2"
    text = render("certificates", settings, **DNS)
    assert json.loads(text)["acme"]["token"] == "/etc/flaskstack/certificates/shop/dns_token"
    assert DNS["certificates_acme_dns_token"] not in text
    assert json.loads(render("certificates", settings, **ACME))["acme"]["token"] == ""
