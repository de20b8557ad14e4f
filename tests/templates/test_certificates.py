"""Certificate settings: validation and rendered files."""

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
def problems(evaluate):
    """Return a function that returns the problems of settings."""
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
def test_valid_settings_are_accepted(problems, settings):
    assert problems(**settings) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ACME | {"certificates_acme_email": ""},
            'certificates_acme_email is "": must be your email',
        ),
        (ACME | LOCAL, "app_domains is [127.0.0.1, localhost, [::1]]: must be public names"),
        (ACME | {"app_domains": ["example.com"]}, "app_domains is [example.com]: must be your own"),
        (ACME | WILDCARD, "certificates_acme_challenge is http-01: must be dns-01 since"),
        (ACME | TWO_EDGES, "certificates_acme_challenge is http-01: must be dns-01 with several"),
        (DNS | {"certificates_acme_dns_token": ""}, "certificates_acme_dns_token: must be a token"),
        (
            ACME | {"certificates_acme_directory": "http://ca.intern/dir"},
            "certificates_acme_directory is http://ca.intern/dir: must be a URL with https",
        ),
        (ACME | {"certificates_acme_ca": "/none"}, "certificates_acme_ca is /none: must be a file"),
        ({"certificates_acme_dns_api": "api"}, "certificates_acme_dns_api is api: must be a URL"),
        (
            {"certificates_acme_dns_resolvers": ["1.1.1.1"]},
            "certificates_acme_dns_resolvers is [1.1.1.1]: must be addresses with a port",
        ),
        (
            {"certificates_acme_dns_propagation_timeout": 5},
            "certificates_acme_dns_propagation_timeout is 5: must be 10 to 600",
        ),
        ({"app_certificate": "provided"}, "certificates_provided_certificate: and"),
    ],
)
def test_invalid_settings_are_rejected(problems, settings, message):
    (found,) = problems(**settings)
    assert found.startswith(message)


def test_provided_certificate_must_match_key_and_names(problems, tmp_path):
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
    assert problems(**given) == []
    (message,) = problems(**given | {"certificates_provided_key": other.key})
    assert "the key does not belong to the certificate" in message
    assert "PRIVATE" not in message
    (message,) = problems(**given | {"app_domains": ["shop.example", "b.example"]})
    assert "it covers shop.example, but not b.example" in message


@pytest.fixture
def settings(render):
    """Return a function that renders the settings of the renewal script."""
    path = "etc/flaskstack/certificates/settings.json.j2"
    return lambda **variables: json.loads(render("certificates", path, **variables))


def test_settings_name_the_wanted_certificate(settings):
    assert settings(**LOCAL)["wanted"].startswith("selfsigned-")
    wanted = {
        settings(**ACME | changed)["wanted"]
        for changed in ({}, OTHER_SERVER, {"certificates_key": "rsa"}, {"app_domains": ["a.b"]})
    }
    assert len(wanted) == 4
    assert all(name.startswith("acme-") for name in wanted)


def test_settings_name_the_file_of_the_token_and_not_the_token(settings):
    for_dns = settings(**DNS)
    token = "/etc/flaskstack/certificates/shop/dns_token"
    assert for_dns["environment"]["DO_AUTH_TOKEN_FILE"] == token
    assert DNS["certificates_acme_dns_token"] not in str(for_dns)
    assert settings(**ACME)["environment"]["DO_AUTH_TOKEN_FILE"] == ""


def test_lego_requests_all_names_by_the_configured_challenge(settings):
    command = " ".join(settings(**ACME)["lego"])
    assert "--domains shop.your-domain.org" in command
    assert "--key-type ec256" in command
    assert "--http.webroot /var/lib/flaskstack/acme run" in command
    resolvers = {"certificates_acme_dns_resolvers": ["127.0.0.1:53"]}
    command = " ".join(settings(**DNS | WILDCARD | resolvers, certificates_key="rsa")["lego"])
    assert "--domains *.shop.your-domain.org" in command
    assert "--key-type rsa2048" in command
    assert command.endswith("--dns digitalocean --dns.resolvers 127.0.0.1:53 run")
