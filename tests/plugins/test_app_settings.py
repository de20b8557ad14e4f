"""Environment and health check of an app."""

from __future__ import annotations

import pytest

from app_settings import app_environment, database_variables, health_request, start_timeout


def test_variables_without_a_value_are_omitted():
    found = app_environment({"CACHE_URL": "", "APP_PREFIX": "", "HOPS": 0}, ["key", ""])
    assert found == {"APP_PREFIX": "", "HOPS": 0, "SECRET_KEY": "key"}


@pytest.mark.parametrize("keys", [["new", "old"], ["new", "old", "new"]])
def test_other_session_keys_are_fallbacks(keys):
    found = app_environment({}, keys)
    assert found == {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": '["old"]'}


def test_variables_of_the_app_override_defaults():
    found = app_environment({"A": 1}, ["key"], {"A": 2, "B": ""}, {"A": 3})
    assert found == {"A": 3, "B": "", "SECRET_KEY": "key"}


@pytest.mark.parametrize(
    ("url", "host", "names"),
    [
        ("", "db", []),
        ("mysql://", "", ["DATABASE_URL"]),
        ("m", "db", ["DATABASE_URL", "DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"]),
    ],
)
def test_database_variables(url, host, names):
    parts = {"host": host, "port": 1, "user": "u", "password": "p", "name": "n", "ca": ""}
    assert list(database_variables(url, parts)) == names


@pytest.mark.parametrize(
    ("domains", "host"),
    [
        (["shop.example"], "shop.example"),
        (["*.shop.example"], "www.shop.example"),
        ([], "localhost"),
    ],
)
def test_health_request_names_the_first_domain(domains, host):
    headers = health_request("/healthz", domains, "/shop")["headers"]
    assert headers["Host"] == headers["X-Forwarded-Host"] == host
    assert headers["X-Forwarded-Prefix"] == "/shop"


def test_start_takes_longer_than_the_health_check():
    assert (start_timeout("30"), start_timeout(120)) == (90, 150)
