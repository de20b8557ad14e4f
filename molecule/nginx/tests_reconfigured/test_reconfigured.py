"""Changed settings have reached the running nginx."""

from __future__ import annotations

import socket

import pytest
import requests

from asking import Site


@pytest.fixture
def site(address):
    """Return the site under its new name and prefix."""
    return Site(address, "shop.example.net", "/store")


def test_name_and_prefix(site, address, headers):
    assert headers(site.get("/").json())["x-forwarded-prefix"] == "/store"
    with pytest.raises(requests.ConnectionError):
        Site(address, "shop.example.org").get("/")


def test_addresses(address):
    assert Site(f"{address}:8080", "shop.example.net", "/store").get("/").status_code == 200


def test_no_proxy_is_trusted_any_more(site, headers):
    seen = headers(site.get("/", headers={"X-Forwarded-For": "203.0.113.9"}).json())
    assert "203.0.113.9" not in seen.values()


def test_upload_size(site):
    assert site.post("/", data=b"x" * 2 * 2**20).status_code == 200


def test_read_timeout(site):
    answer = site.get("/slow")
    assert answer.status_code == 504
    assert answer.elapsed.total_seconds() < 2


def test_static_files(site):
    assert site.get("/static/site.css").headers["Cache-Control"].startswith("public, max-age=60,")


def test_a_path_that_is_no_longer_streamed_is_buffered(site):
    with pytest.raises(requests.ReadTimeout):
        site.get("/stream", timeout=0.5)


def test_https_is_gone_where_no_site_has_it(address, https):
    with socket.socket() as connection:
        connection.settimeout(5)
        reached = connection.connect_ex((address, 443)) == 0
    assert reached != https  # on the other host a second app still has it
