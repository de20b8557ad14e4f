"""Behaviour of a site with changed settings."""

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


def test_second_listen_address(server, name, prefix):
    second = Site(f"{server.address}:{server.second}", name, prefix)
    assert second.get("/").status_code == 200


def test_forwarded_for_is_ignored_without_a_load_balancer(site, headers):
    seen = headers(site.get("/", headers={"X-Forwarded-For": "203.0.113.9"}).json())
    assert "203.0.113.9" not in seen.values()


def test_upload_size(site):
    assert site.post("/", data=b"x" * 2 * 2**20).status_code == 200


def test_static_max_age(site):
    cached = site.get("/static/site.css?v=1").headers["Cache-Control"]
    assert cached == "public, max-age=60, immutable"


def test_undeclared_path_is_buffered(site):
    with pytest.raises(requests.ReadTimeout):
        site.get("/stream", timeout=0.5)


def test_https_port_is_closed_without_https_sites(server):
    with socket.socket() as connection:
        assert connection.connect_ex((server.address, server.https)) != 0
