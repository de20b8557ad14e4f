"""Certificates that cannot serve the site are rejected on the controller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certificates import certificate_names, certificate_problems, subject_alt_names
from helpers.certs import Authority

NAME = "shop.example"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def problems(authority):
    """Return a function that creates a certificate and returns its problems."""

    def problems(*names, required=(NAME,), days=(-1, 90), more="", key="", **options):
        start, end = (datetime.now(UTC) + timedelta(days=day) for day in days)
        pair = authority.certify(*names or [NAME], start=start, end=end, **options)
        return certificate_problems(pair.chain + more, key or pair.key, list(required))

    return problems


def test_a_matching_certificate_and_key_are_accepted(problems, authority):
    names = ("shop.example", "WWW.shop.example", "*.shop.example", "10.0.0.1", "[0:0:0:0:0:0:0:1]")
    assert not problems(NAME, "*.shop.example", "10.0.0.1", "::1", required=names)
    assert not problems(more=authority.pem)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"required": ["*.shop.example", "a.b", NAME]},
            "it covers shop.example, but not *.shop.example, a.b",
        ),
        ({"passphrase": b"secret"}, "the key has a passphrase"),
        ({"key": "text"}, "the key is not a PEM file (-----BEGIN PRIVATE KEY-----)"),
        ({"days": (-20, -10)}, "it expired on "),
        ({"days": (10, 20)}, "it is not valid before "),
        ({"more": Authority("other").pem}, "the chain is out of order at "),
        ({"key": Authority().certify(NAME).key}, "the key does not belong to the certificate"),
    ],
)
def test_other_certificates_are_rejected(problems, options, problem):
    (found,) = problems(**options)
    assert found.startswith(problem)


def test_a_wildcard_covers_one_level(problems):
    (found,) = problems("*.shop.example", required=[NAME, "a.b.shop.example", "a.shop.example"])
    assert found == "it covers *.shop.example, but not shop.example, a.b.shop.example"


def test_a_file_that_is_not_pem_is_rejected():
    (found,) = certificate_problems("text", "text", [])
    assert found == "the certificate is not a PEM file (-----BEGIN CERTIFICATE-----)"


@pytest.mark.parametrize(
    ("domains", "names"),
    [
        (["Shop.Example", "[::0001]", "shop.example"], ["shop.example", "::1"]),
        (["a.org", "www.a.org", "*.a.org", "x.y.a.org"], ["a.org", "*.a.org", "x.y.a.org"]),
        (["*.a.org", "*.b.a.org", "192.0.2.7"], ["*.a.org", "*.b.a.org", "192.0.2.7"]),
    ],
)
def test_a_certificate_names_each_domain_once(domains, names):
    """Let's Encrypt rejects names that a wildcard covers."""
    assert certificate_names(domains) == names


def test_names_and_addresses_are_subject_alternative_names():
    names = ["shop.example", "*.Shop.example", "10.0.0.1", "[2001:db8::1]", "::1"]
    assert subject_alt_names(names) == [
        "DNS:shop.example",
        "DNS:*.shop.example",
        "IP:10.0.0.1",
        "IP:2001:db8::1",
        "IP:::1",
    ]
