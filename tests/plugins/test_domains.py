"""Names of the DNS."""

import pytest

from domains import dns_names


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("*.Mu\u0308nchen.example", "*.xn--mnchen-3ya.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("Shop.example.org", "Shop.example.org"),
        ("[2001:db8::1]", "[2001:db8::1]"),
    ],
)
def test_a_name_as_the_dns_knows_it(name, known):
    assert dns_names([name]) == [known]
