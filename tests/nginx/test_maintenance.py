"""During maintenance clients get a 503 and a page, without a reload of nginx."""

from __future__ import annotations

import pytest

from helpers.clients import Site

PAGE = "<p>$100 'off' \\ back at noon"


@pytest.fixture
def flag(server):
    """Return the file that `flaskstack shop maintenance on` creates."""
    folder = server.path("/var/lib/flaskstack/maintenance")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.html").write_text(PAGE)
    yield folder / "shop"
    (folder / "shop").unlink(missing_ok=True)


def test_maintenance_starts_and_ends_with_a_file(site, flag):
    assert site.get("/notes").status_code == 200
    flag.touch()
    assert site.get("/notes").status_code == 503
    flag.unlink()
    assert site.get("/notes").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/static/site.css"), ("POST", "/"), ("DELETE", "/files/x"), ("GET", "/ws/chat")],
)
def test_all_requests_get_the_page(site, flag, method, path):
    flag.touch()
    answer = site.request(method, path)
    assert (answer.status_code, answer.text) == (503, PAGE)
    assert answer.headers["Retry-After"] == "300"
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "img-src data:" in answer.headers["Content-Security-Policy"]
    assert len(answer.headers["X-Request-ID"]) == 32


def test_health_path_and_acme_challenge_stay_available(server, site, flag):
    flag.touch()
    http = Site(f"{server.address}:{server.http}", site.name)
    assert http.get("/.well-known/acme-challenge/x").status_code == 404
    assert site.get("/healthz?verbose=1").json()["path"] == "/healthz?verbose=1"
    assert site.get("/healthz/more").status_code == 503


def test_allowed_address_reaches_the_app(visit, flag):
    flag.touch()
    for source, status in (("127.0.0.30", 200), ("127.0.0.31", 503)):
        assert visit("/notes", source=source)[0][0] == status


def test_page_has_no_public_url(bare, flag):
    assert bare.get("/.flaskstack/maintenance").status_code == 404
