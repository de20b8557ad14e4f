"""Domain names are normalized."""

import pytest

from domains import dns_names


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("*.Mu\u0308nchen.example", "*.xn--mnchen-3ya.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("Shop.example.org", "shop.example.org"),
        ("shop.example.org.", "shop.example.org"),
        ("https://Shop.example.org:8443/cart?x#y", "shop.example.org"),
        ("shop.example.org:443", "shop.example.org"),
        (" user@shop.example.org/", "shop.example.org"),
        ("*.shop.example.org", "*.shop.example.org"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("2001:DB8::1", "[2001:db8::1]"),
        ("http://[2001:db8::1]:80/", "[2001:db8::1]"),
        ("203.0.113.7:80", "203.0.113.7"),
        ("localhost", "localhost"),
    ],
)
def test_domain_name_is_normalized(name, known):
    assert dns_names([name, name]) == [known]
    assert dns_names([known]) == [known]
