"""The app starts with good settings only, and says which one is not."""

import pytest

from sample_app import config

GOOD = {
    "DATABASE_URL": "mysql+pymysql://app:pw@localhost/app",
    "CACHE_URL": "unix:///run/cache.sock",
    "QUEUE_URL": "unix:///run/queue.sock",
    "SECRET_KEY": "k" * 20 + "0123456789abcdef",
    "APP_ENV": "production",
}


def load(**changes):
    """Load the good environment with some variables changed; None takes one away."""
    environ = {**GOOD, **changes}
    return config.load({name: value for name, value in environ.items() if value is not None})


def test_production_is_the_default():
    """A forgotten APP_ENV must not loosen anything."""
    assert isinstance(load(APP_ENV=None), config.Production)


def test_values_are_read_with_their_types():
    """Numbers are numbers."""
    settings = load(
        TRUSTED_PROXY_HOPS="2", DB_POOL_SIZE="7", DB_POOL_RECYCLE="120", APP_RELEASE="r1"
    )
    assert (settings.trusted_proxy_hops, settings.db_pool_size) == (2, 7)
    assert (settings.db_pool_recycle, settings.release) == (120.0, "r1")


def test_database_is_not_waited_for_longer_than_the_request_lasts():
    """The read timeout follows the one setting for the whole chain, and stays inside of it."""
    assert 5 < load(REQUEST_TIMEOUT="10").db_read_timeout < 10


@pytest.mark.parametrize("variable", ["DATABASE_URL", "CACHE_URL", "QUEUE_URL", "SECRET_KEY"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_missing_variable_is_named(variable, value):
    """Nothing that is needed has a default."""
    with pytest.raises(config.ConfigError, match=f"^{variable} is not set"):
        load(**{variable: value})


@pytest.mark.parametrize("environment", ["production", "development"])
@pytest.mark.parametrize(
    "value", ["changeme", "CHANGE-ME", "secret", "your-secret-key-goes-in-here", "dev", "x" * 40]
)
@pytest.mark.parametrize("variable", ["SECRET_KEY", "HOOK_API_KEY"])
def test_placeholder_is_refused(variable, value, environment):
    """A key that everybody knows is no key."""
    with pytest.raises(config.ConfigError, match=f"{variable} is a placeholder"):
        load(**{variable: value, "APP_ENV": environment})


def test_short_key_is_refused_in_production():
    """Sixteen characters do for a laptop, not for a server."""
    short = "a8Fj2k9Q0zLm3nBv"
    assert load(SECRET_KEY=short, APP_ENV="development").secret_key == short
    with pytest.raises(config.ConfigError, match="SECRET_KEY is shorter than 32"):
        load(SECRET_KEY=short)


@pytest.mark.parametrize("variable", ["DEBUG", "FLASK_DEBUG"])
def test_debug_is_refused_in_production(variable):
    """The debugger runs code for whoever asks."""
    assert load(**{variable: "1", "APP_ENV": "development"}).debug
    with pytest.raises(config.ConfigError, match="DEBUG"):
        load(**{variable: "true"})


def test_unknown_environment_is_refused():
    """A misspelt name must not fall back to anything."""
    with pytest.raises(config.ConfigError, match="APP_ENV must be one of"):
        load(APP_ENV="prod")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DB_POOL_SIZE", "0"),
        ("DB_POOL_SIZE", "many"),
        ("TRUSTED_PROXY_HOPS", "-1"),
        ("REQUEST_TIMEOUT", "0"),
        ("SCHEDULER_LEASE", "1"),
    ],
)
def test_useless_number_is_refused(variable, value):
    """The message names the variable."""
    with pytest.raises(config.ConfigError, match=variable):
        load(**{variable: value})


def test_lease_shorter_than_the_interval_is_refused():
    """It would end between two ticks."""
    with pytest.raises(config.ConfigError, match="SCHEDULER_LEASE"):
        load(SCHEDULER_INTERVAL="60", SCHEDULER_LEASE="10")


def test_keys_of_before_are_read_as_a_list():
    """A rotation gives the old key beside the new one."""
    assert load().secret_key_fallbacks == ()
    old = GOOD["SECRET_KEY"][::-1]
    assert load(SECRET_KEY_FALLBACKS=f'["{old}"]').secret_key_fallbacks == (old,)


@pytest.mark.parametrize("value", ["an old key", '"an old key"', "[1]", "{}"])
def test_keys_of_before_that_are_no_list_are_refused(value):
    """The message does not repeat a key."""
    with pytest.raises(config.ConfigError, match="SECRET_KEY_FALLBACKS is not a list") as error:
        load(SECRET_KEY_FALLBACKS=value)
    assert value not in str(error.value)


def test_short_key_of_before_is_refused_too():
    """Whoever guesses it signs sessions as well."""
    with pytest.raises(config.ConfigError, match="SECRET_KEY_FALLBACKS is shorter than 32"):
        load(SECRET_KEY_FALLBACKS='["a8Fj2k9Q0zLm3nBv"]')
