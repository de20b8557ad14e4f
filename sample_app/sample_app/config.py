"""Settings, read from the environment. An error message names each variable that is invalid."""

from __future__ import annotations

import re
from dataclasses import dataclass

from environs import Env, EnvValidationError, ValidationError, validate

PLACEHOLDER = re.compile(
    r"change[-_ ]?me|replace[-_ ]?me|your[-_ ].*|<.*>|x{3,}|secret([-_ ]?key)?|password|default"
    r"|dev(elopment)?|test(ing)?|example|insecure|todo|none|null|root|admin|0+|(1234|abcd).*",
    re.IGNORECASE,
)
ENVIRONMENT = validate.OneOf(["production", "development"])
NOT_EMPTY = validate.Regexp(r"\s*\S", error="Must not be empty.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process. Times are in seconds, pool sizes in connections per process."""

    database_url: str
    cache_url: str
    queue_url: str
    secret_key: str
    secret_key_fallbacks: tuple[str, ...] = ()  # previous keys: accepted, but not used to sign
    diagnostics_key: str = ""  # the diagnostics blueprint is registered only with a key
    release: str = "unreleased"
    trusted_proxy_hops: int = 0
    request_timeout: float = 30.0
    db_pool_size: int = 5
    db_max_overflow: int = 0
    db_pool_recycle: float = 300.0
    db_pool_timeout: float = 3.0
    scheduler_interval: float = 10.0
    scheduler_lease: float = 15.0
    max_content_length: int = 1024 * 1024
    log_level: str = "INFO"
    debug: bool = False
    testing: bool = False

    @property
    def db_read_timeout(self) -> float:
        """Seconds to wait for MySQL: above its statement limit, below Gunicorn's timeout."""
        return max(1.0, 0.9 * self.request_timeout)


def load() -> Settings:
    """Return the settings from the environment; raises EnvValidationError."""
    env = Env(eager=False)  # so that one message names all invalid variables
    app_env = env.str("APP_ENV", "production", validate=ENVIRONMENT)
    secret = Secret(16 if app_env == "development" else 32)
    values = {
        "database_url": env.str("DATABASE_URL", validate=NOT_EMPTY),
        "cache_url": env.str("CACHE_URL", validate=NOT_EMPTY),
        "queue_url": env.str("QUEUE_URL", validate=NOT_EMPTY),
        "secret_key": env.str("SECRET_KEY", validate=secret),
        "secret_key_fallbacks": env.json("SECRET_KEY_FALLBACKS", (), validate=secret.each),
        "diagnostics_key": env.str("DIAGNOSTICS_KEY", "", validate=secret.or_empty),
        "release": env.str("APP_RELEASE", "unreleased"),
        "trusted_proxy_hops": env.int("TRUSTED_PROXY_HOPS", 0, validate=at_least(0)),
        "request_timeout": env.float("REQUEST_TIMEOUT", 30.0, validate=at_least(1)),
        "db_pool_size": env.int("DB_POOL_SIZE", 5, validate=at_least(1)),
        "db_max_overflow": env.int("DB_MAX_OVERFLOW", 0, validate=at_least(0)),
        "db_pool_recycle": env.float("DB_POOL_RECYCLE", 300.0, validate=at_least(1)),
        "db_pool_timeout": env.float("DB_POOL_TIMEOUT", 3.0, validate=at_least(0.1)),
        "scheduler_interval": env.float("SCHEDULER_INTERVAL", 10.0, validate=at_least(1)),
        "scheduler_lease": env.float("SCHEDULER_LEASE", None, validate=at_least(2)),
        "max_content_length": env.int("MAX_CONTENT_LENGTH", 1024**2, validate=at_least(1024)),
        "log_level": env.str("LOG_LEVEL", "INFO").upper(),
        "debug": any([env.bool("DEBUG", False), env.bool("FLASK_DEBUG", False)]),
    }
    env.seal()
    interval = values["scheduler_interval"]
    if values["scheduler_lease"] is None:
        values["scheduler_lease"] = max(5.0, 1.5 * interval)
    if values["scheduler_lease"] <= interval / 2:
        _fail("SCHEDULER_LEASE", "Must be more than half of SCHEDULER_INTERVAL.")
    if values["debug"] and app_env == "production":
        _fail("DEBUG", "DEBUG and FLASK_DEBUG must be off when APP_ENV is production.")
    values["secret_key_fallbacks"] = tuple(values["secret_key_fallbacks"])
    return Settings(**values)


class Secret(validate.Length):
    """Validate that a secret is long enough and not a placeholder."""

    def __init__(self, least: int) -> None:
        super().__init__(min=least)

    def __call__(self, value: str) -> str:
        """Return the secret; raises ValidationError, which does not contain it."""
        if PLACEHOLDER.fullmatch(value.strip()):
            raise ValidationError("Is a placeholder: generate a random value.")
        return super().__call__(value)

    def or_empty(self, value: str) -> str:
        """Accept an empty string, too."""
        return self(value) if value else value

    def each(self, values: list[str]) -> list[str]:
        """Validate a list of secrets."""
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValidationError("Must be a JSON list of strings.")
        return [self(value) for value in values]


def at_least(number: float) -> validate.Range:
    """Return a validator of numbers."""
    return validate.Range(min=number)


def _fail(variable: str, reason: str) -> None:
    raise EnvValidationError(f"Environment variables invalid: {variable}: {reason}", [reason])
