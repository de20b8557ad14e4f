"""Headers that tell browsers what the site's pages may do: ours, the inventory's, and the app's."""

from __future__ import annotations

import pytest

OURS = {
    "Content-Security-Policy": "base-uri 'self'; frame-ancestors 'self'; object-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # the inventory's
    "X-Shop": "open",
}


@pytest.mark.parametrize(
    "path", ["/", "/failed", "/static/site.css", "/static/missing.css", "/media/old.txt", "/stream"]
)
def test_every_answer_has_them_once(site, path):
    with site.get(path, stream=True) as answer:
        headers = answer.raw.headers
        assert {name: headers.getlist(name) for name in OURS} == {
            name: [value] for name, value in OURS.items()
        }
        # They would keep pages from camera, location and payment, and a login from its pop-up.
        assert "Referrer-Policy" not in headers
        assert not {"Permissions-Policy", "Cross-Origin-Opener-Policy"} & {*headers}


def test_those_of_the_app_win(site):
    answer = site.get("/policies").raw.headers
    assert answer.getlist("Content-Security-Policy") == ["default-src 'none'"]
    assert answer.getlist("X-Frame-Options") == ["SAMEORIGIN"]
    assert answer.getlist("X-Content-Type-Options") == [OURS["X-Content-Type-Options"]]
    assert "X-Powered-By" not in answer


def test_those_of_the_app_win_for_a_file_that_nginx_sends_for_it(site):
    answer = site.get("/policies/files/a%20b.txt")
    assert answer.status_code == 200
    assert answer.raw.headers.getlist("Content-Security-Policy") == ["default-src 'none'"]
    assert answer.raw.headers.getlist("X-Content-Type-Options") == ["nosniff"]


def test_pages_of_nginx_have_a_policy_of_their_own(site):
    answer = site.post("/", data=b"x" * (2**20 + 1))
    assert answer.status_code == 413
    assert answer.raw.headers.getlist("Content-Security-Policy")[0].startswith("default-src 'none'")
    assert "style=" not in answer.text
