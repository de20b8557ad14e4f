"""A certificate that cannot serve the site is refused before any host sees it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from certificates import certificate_names, certificate_problems, subject_alt_names
from helpers.certs import Authority

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority():
    return Authority()


def problems(pair, *names):
    return certificate_problems(pair.chain, pair.key, list(names))


def test_a_pair_that_covers_the_names_is_taken(authority):
    pair = authority.certify("shop.example", "*.shop.example", "10.0.0.1", "::1")
    names = ("shop.example", "WWW.shop.example", "*.shop.example", "10.0.0.1", "[0:0:0:0:0:0:0:1]")
    assert problems(pair, *names) == []


def test_names_that_it_lacks_are_told(authority):
    pair = authority.certify("*.shop.example")
    assert problems(pair, "shop.example", "a.b.shop.example", "a.shop.example") == [
        "it is for *.shop.example, and not for shop.example, a.b.shop.example"
    ]


def test_a_key_of_another_certificate_is_refused(authority):
    one, other = authority.certify("shop.example"), authority.certify("shop.example")
    assert certificate_problems(one.chain, other.key, ["shop.example"]) == [
        "the key is not this certificate's"
    ]


def test_a_key_with_a_passphrase_is_refused(authority):
    pair = authority.certify("shop.example", passphrase=b"secret")
    assert problems(pair, "shop.example") == [
        "the key has a passphrase, which nginx could not ask anybody for"
    ]


@pytest.mark.parametrize(
    ("start", "end", "word"), [(-20, -10, "it ended on"), (10, 20, "it begins on")]
)
def test_a_certificate_out_of_its_time_is_refused(authority, start, end, word):
    begin, over = NOW + timedelta(days=start), NOW + timedelta(days=end)
    (problem,) = problems(authority.certify("shop.example", start=begin, end=over), "shop.example")
    assert problem.startswith(word)


def test_a_chain_in_the_wrong_order_is_refused(authority):
    pair = authority.certify("shop.example")
    other = Authority("another")
    (problem,) = certificate_problems(pair.chain + other.pem, pair.key, ["shop.example"])
    assert re.match("the chain has [^ ].*O=another after", problem)
    assert certificate_problems(pair.chain + authority.pem, pair.key, ["shop.example"]) == []


def test_what_is_no_pem_is_refused(authority):
    pair = authority.certify("shop.example")
    assert certificate_problems("nothing", pair.key, []) == [
        "the certificate is no PEM file with -----BEGIN CERTIFICATE-----"
    ]
    assert certificate_problems(pair.chain, "nothing", []) == [
        "the key is no PEM file with -----BEGIN PRIVATE KEY-----"
    ]


@pytest.mark.parametrize(
    ("domains", "names"),
    [
        (["Shop.Example", "[::0001]", "shop.example"], ["shop.example", "::1"]),
        (["a.org", "www.a.org", "*.a.org", "x.y.a.org"], ["a.org", "*.a.org", "x.y.a.org"]),
        (["*.a.org", "*.b.a.org", "192.0.2.7"], ["*.a.org", "*.b.a.org", "192.0.2.7"]),
    ],
)
def test_a_certificate_has_each_name_once(domains, names):
    """Let's Encrypt refuses one that a wildcard has."""
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
