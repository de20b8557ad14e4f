"""Changed settings have reached the running nginx."""

from __future__ import annotations

import socket

import pytest
import requests

from helpers.clients import Site


def test_the_new_site_is_served_and_the_old_one_is_not(address):
    site = Site(f"{address}:8080", "shop.example.net", "/store")
    answer = site.post("/", data=b"x" * 2 * 2**20)
    assert dict(answer.json()["headers"])["X-Forwarded-Prefix"] == "/store"
    with pytest.raises(requests.ConnectionError):
        Site(address, "shop.example.org").get("/")


def test_https_is_gone_where_no_site_has_it(address, https):
    with socket.socket() as connection:
        connection.settimeout(5)
        reached = connection.connect_ex((address, 443)) == 0
    assert reached != https  # on the other host a second app still has it
