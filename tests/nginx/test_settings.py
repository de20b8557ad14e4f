"""A site with other settings behaves otherwise."""

from __future__ import annotations

import socket

import pytest
import requests

from helpers.clients import Site

pytestmark = pytest.mark.parametrize("server", ["changed"], indirect=True, scope="session")


def test_name_and_prefix(server, site, headers):
    assert headers(site.get("/").json())["x-forwarded-prefix"] == "/store"
    with pytest.raises(requests.ConnectionError):
        Site(f"{server.address}:{server.http}", "shop.example.org").get("/")


def test_a_second_address(server, name, prefix):
    second = Site(f"{server.address}:{server.second}", name, prefix)
    assert second.get("/").status_code == 200


def test_without_a_load_balancer_nobody_may_name_another_visitor(site, headers):
    seen = headers(site.get("/", headers={"X-Forwarded-For": "203.0.113.9"}).json())
    assert "203.0.113.9" not in seen.values()


def test_upload_size(site):
    assert site.post("/", data=b"x" * 2 * 2**20).status_code == 200


def test_static_files(site):
    cached = site.get("/static/site.css?v=1").headers["Cache-Control"]
    assert cached == "public, max-age=60, immutable"


def test_a_path_that_is_not_streamed_is_buffered(site):
    with pytest.raises(requests.ReadTimeout):
        site.get("/stream", timeout=0.5)


def test_there_is_no_https_where_no_site_has_it(server):
    with socket.socket() as connection:
        assert connection.connect_ex((server.address, server.https)) != 0
