"""Malicious requests fail, and do not reach the app in another form."""

from __future__ import annotations

import json
import re

import pytest

from helpers import attacks
from helpers.attacks import ATTACKS, Target

SENT = {}  # results by host: all attacks are sent once, then checked by kind


@pytest.fixture
def target(address, ca):
    """Return the host's site as a target."""
    return Target(address, "localhost", ca)


@pytest.fixture
def results(host, target, request):
    """Return the result of each attack by kind and name; the first call prints a table."""
    name = target.address
    if name not in SENT:
        found = attacks.results(target, host)
        SENT[name] = {(result.attack.kind, result.attack.name): result for result in found}
        table = "\n".join("  ".join(result.row) for result in found)
        with request.getfixturevalue("capsys").disabled():
            print(f"\n{name}: kind, attack, answer, what reached the app\n{table}")
    return SENT[name]


@pytest.mark.parametrize("kind", dict.fromkeys(attack.kind for attack in ATTACKS))
def test_attacks_fail(results, kind):
    wrong = {f"{k}: {name}": found.problems for (k, name), found in results.items() if k == kind}
    assert wrong
    assert {name: problems for name, problems in wrong.items() if problems} == {}


def test_slow_headers_do_not_block_other_clients(target, host):
    patience = int(re.search(r"client_header_timeout (\d+)s", nginx(host)).group(1))
    alive, longest = attacks.slowloris(target, 200, patience + 3)
    assert alive == 0
    assert longest < 2


def nginx(host):
    """Return the complete configuration of nginx."""
    return host.check_output("nginx -T 2>/dev/null")


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


def test_posts_are_rate_limited_and_pages_are_not(host):
    """Sent from the host, since the controller is exempt."""
    ask = (
        "import collections, http.client, json, ssl; c = collections.Counter(); e = {};"
        "context = ssl._create_unverified_context()\n"
        "def ask(method, path):\n"
        "    h = http.client.HTTPSConnection('127.0.0.1', context=context)\n"
        "    h.request(method, path, headers={'Host': 'localhost'}); r = h.getresponse()\n"
        "    c[f'{method} {r.status}'] += 1; e[f'{r.status}'] = dict(r.getheaders())\n"
        "for _ in range(40): ask('GET', '/whoami'); ask('POST', '/counter')\n"
        "print(json.dumps([c, e['429']]))"
    )
    counts, refusal = json.loads(host.check_output("python3 -c %s", ask))
    assert counts["GET 200"] == 40
    assert 15 <= counts["POST 200"] <= 25
    assert counts["POST 200"] + counts["POST 429"] == 40
    assert int(refusal["Retry-After"]) > 0
    assert refusal["Content-Type"] == "text/html"
