"""Security headers of the role, the inventory and the app."""

from __future__ import annotations

import pytest

OURS = {
    "Content-Security-Policy": "base-uri 'self'; frame-ancestors 'self'; object-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # from the inventory
    "X-Shop": 'an \\ "open" shop',
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
        # The role sends neither, since they could break camera, location or login pop-ups.
        assert "Referrer-Policy" not in headers
        assert not {"Permissions-Policy", "Cross-Origin-Opener-Policy"} & {*headers}


def test_headers_of_the_app_take_precedence(site):
    answer = site.get("/policies").raw.headers
    assert answer.getlist("Content-Security-Policy") == ["default-src 'none'"]
    assert answer.getlist("X-Frame-Options") == ["SAMEORIGIN"]
    assert answer.getlist("X-Content-Type-Options") == [OURS["X-Content-Type-Options"]]
    assert "X-Powered-By" not in answer


def test_headers_of_the_app_take_precedence_for_x_accel_redirect(site):
    answer = site.get("/policies/files/a%20b.txt")
    assert answer.status_code == 200
    assert answer.raw.headers.getlist("Content-Security-Policy") == ["default-src 'none'"]
    assert answer.raw.headers.getlist("X-Content-Type-Options") == ["nosniff"]


def test_error_pages_of_nginx_have_their_own_policy(site):
    answer = site.post("/", data=b"x" * (2**20 + 1))
    assert answer.status_code == 413
    assert answer.raw.headers.getlist("Content-Security-Policy")[0].startswith("default-src 'none'")
    assert "style=" not in answer.text
