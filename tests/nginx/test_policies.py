"""Security headers set by the role, the inventory and the app."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

OURS = {
    "Content-Security-Policy": "base-uri 'self'; frame-ancestors 'self'; object-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # from the inventory
    "X-Shop": 'a \\ "shop"',
}


@pytest.mark.parametrize(
    "path", ["/", "/failed", "/static/site.css", "/static/missing.css", "/media/old.txt", "/stream"]
)
def test_every_response_has_the_headers_once(site, path):
    with site.get(path, stream=True) as answer:
        headers = answer.raw.headers
        assert {name: headers.getlist(name) for name in OURS} == {
            name: [value] for name, value in OURS.items()
        }
        # The role sends none of these, since they could break camera, location or login pop-ups.
        assert "Referrer-Policy" not in headers
        assert not {"Permissions-Policy", "Cross-Origin-Opener-Policy"} & {*headers}


@pytest.mark.parametrize("file", ["", "/files/a%20b.txt"])
def test_headers_of_the_app_take_precedence(site, file):
    headers = site.get(f"/policies{file}").raw.headers
    assert headers.getlist("Content-Security-Policy") == ["default-src 'none'"]
    assert headers.getlist("X-Frame-Options") == ["SAMEORIGIN"]
    assert headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert "X-Powered-By" not in headers


def test_error_pages_of_nginx_have_their_own_policy(site):
    answer = site.post("/", data=b"x" * (2**20 + 1))
    assert answer.status_code == 413
    assert answer.headers["X-Frame-Options"] == "DENY"
    style = re.search("<style>(.*)</style>", answer.text)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = answer.raw.headers.getlist("Content-Security-Policy")
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
