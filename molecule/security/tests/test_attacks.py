"""Malicious requests fail, and do not reach the app in another form."""

from __future__ import annotations

import json
import re

import pytest

from helpers import attacks
from helpers.attacks import ATTACKS, Target


@pytest.fixture(scope="module")
def target(address, ca):
    """Return the host's site as a target."""
    return Target(address, "localhost", ca)


@pytest.fixture(scope="module")
def results(host, target):
    """Send all attacks and return their results."""
    return attacks.results(target, host)


@pytest.mark.parametrize("kind", dict.fromkeys(attack.kind for attack in ATTACKS))
def test_attacks_fail(results, kind):
    sent = {one.attack.name: one.problems for one in results if one.attack.kind == kind}
    assert sent
    assert {name: problems for name, problems in sent.items() if problems} == {}


def test_slow_headers_do_not_block_other_clients(target, host):
    configuration = host.check_output("nginx -T 2>/dev/null")
    timeout = int(re.search(r"client_header_timeout (\d+)s", configuration)[1])
    alive, longest = attacks.slowloris(target, 200, timeout + 3)
    assert alive == 0
    assert longest < 2


@pytest.mark.parametrize("beyond", ["//evil.example", "/\\evil.example", "https://evil.example"])
def test_a_form_does_not_redirect_to_other_sites(site, beyond):
    answer = site.write(site.get("/"), author="Eve", body="come", next=beyond)
    assert answer.status_code == 303
    assert "evil" not in answer.headers["Location"]


def test_the_session_cookie_is_secure_and_hidden_from_scripts_and_other_sites(site):
    cookie = site.get("/").headers["Set-Cookie"]
    assert cookie.startswith("__Secure-")
    for word in ("Secure", "HttpOnly", "SameSite=Lax"):
        assert f"; {word}" in cookie


RATE = """
import collections, http.client, json, ssl
counts = collections.Counter()
for method, path in [("GET", "/whoami"), ("POST", "/counter")] * 40:
    client = http.client.HTTPSConnection("127.0.0.1", context=ssl._create_unverified_context())
    client.request(method, path, headers={"Host": "localhost"})
    answer = client.getresponse()
    counts[f"{method} {answer.status}"] += 1
    if answer.status == 429:
        refusal = dict(answer.getheaders())
print(json.dumps([counts, refusal]))
"""


def test_posts_are_rate_limited_and_pages_are_not(host):
    """Requests come from the host, since the controller is exempt."""
    counts, refusal = json.loads(host.check_output("python3 -c %s", RATE))
    assert counts["GET 200"] == 40
    assert 15 <= counts["POST 200"] <= 25
    assert counts["POST 200"] + counts["POST 429"] == 40
    assert int(refusal["Retry-After"]) > 0
    assert refusal["Content-Type"] == "text/html"
