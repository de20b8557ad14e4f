"""The running nginx uses the changed settings."""

from __future__ import annotations

import socket

import pytest
import requests

from helpers.clients import Site


def test_new_host_name_is_served_and_the_previous_one_is_not(address):
    site = Site(f"{address}:8080", "shop.example.net", "/store")
    answer = site.post("/", data=b"x" * 2 * 2**20)
    assert dict(answer.json()["headers"])["X-Forwarded-Prefix"] == "/store"
    with pytest.raises(requests.ConnectionError):
        Site(address, "shop.example.org").get("/")


def test_https_port_is_closed_without_https_sites(address, https):
    with socket.socket() as connection:
        connection.settimeout(5)
        reached = connection.connect_ex((address, 443)) == 0
    assert reached != https  # the second app on the other host still has HTTPS
