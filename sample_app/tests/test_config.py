"""The app starts only with valid settings, and its error names each invalid variable."""

import os

import pytest
from environs import EnvError

from sample_app import config

VALID = {
    "DATABASE_URL": "mysql+pymysql://app:pw@localhost/app",
    "CACHE_URL": "unix:///run/cache.sock",
    "QUEUE_URL": "unix:///run/queue.sock",
    "SECRET_KEY": "k" * 20 + "0123456789abcdef",
}
SHORT = "a8Fj2k9Q0zLm3nBv"  # 16 characters


@pytest.fixture
def load(monkeypatch):
    """Return a function that loads a valid environment with some variables changed."""

    def load(**changes):
        variables = (VALID | changes).items()
        environ = {name: value for name, value in variables if value is not None}
        monkeypatch.setattr(os, "environ", environ)
        return config.load()

    return load


def test_values_have_their_types(load):
    previous = VALID["SECRET_KEY"][::-1]
    settings = load(
        TRUSTED_PROXY_HOPS="2",
        DB_POOL_RECYCLE="120",
        APP_RELEASE="r1",
        SECRET_KEY_FALLBACKS=f'["{previous}"]',
    )
    assert (settings.trusted_proxy_hops, settings.db_pool_recycle) == (2, 120.0)
    assert (settings.release, settings.secret_key_fallbacks) == ("r1", (previous,))
    assert (settings.diagnostics_key, settings.debug, settings.testing) == ("", False, False)


def test_the_database_timeout_is_below_the_request_timeout(load):
    assert 5 < load(REQUEST_TIMEOUT="10").db_read_timeout < 10


@pytest.mark.parametrize("variable", ["DATABASE_URL", "CACHE_URL", "QUEUE_URL", "SECRET_KEY"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_variable_is_named(load, variable, value):
    with pytest.raises(EnvError, match=variable):
        load(**{variable: value})


@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize("value", ["CHANGE-ME", "secret", "your-secret-key-goes-in-here", "x" * 40])
@pytest.mark.parametrize("variable", ["SECRET_KEY", "DIAGNOSTICS_KEY"])
def test_a_placeholder_is_refused(load, variable, value, environment):
    with pytest.raises(EnvError, match=f"{variable}.*placeholder"):
        load(**{variable: value, "APP_ENV": environment})


@pytest.mark.parametrize("variable", ["SECRET_KEY", "DIAGNOSTICS_KEY"])
def test_a_short_secret_is_refused_in_production(load, variable):
    load(**{variable: SHORT, "APP_ENV": "development"})
    with pytest.raises(EnvError, match=f"{variable}.*32"):
        load(**{variable: SHORT})


@pytest.mark.parametrize("value", ["a key", '"a key"', f'["{SHORT}"]', '["changeme"]'])
def test_an_invalid_list_of_previous_keys_is_refused(load, value):
    with pytest.raises(EnvError, match="SECRET_KEY_FALLBACKS") as error:
        load(SECRET_KEY_FALLBACKS=value)
    assert value not in str(error.value)


@pytest.mark.parametrize("variable", ["DEBUG", "FLASK_DEBUG"])
def test_debug_is_refused_in_production(load, variable):
    assert load(**{variable: "1", "APP_ENV": "development"}).debug
    with pytest.raises(EnvError, match="DEBUG"):
        load(**{variable: "true"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("APP_ENV", "prod"),
        ("DB_POOL_SIZE", "0"),
        ("DB_POOL_SIZE", "many"),
        ("TRUSTED_PROXY_HOPS", "-1"),
        ("REQUEST_TIMEOUT", "0"),
        ("SCHEDULER_INTERVAL", "0"),
        ("JOB_OVERDUE", "0"),
    ],
)
def test_an_invalid_value_is_refused(load, variable, value):
    with pytest.raises(EnvError, match=variable):
        load(**{variable: value})


def test_all_invalid_variables_are_in_one_message(load):
    with pytest.raises(EnvError, match=r"SECRET_KEY.*DB_POOL_SIZE"):
        load(SECRET_KEY="dev", DB_POOL_SIZE="0")
