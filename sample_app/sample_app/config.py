"""Settings, read from the environment. One error message names all variables that are invalid."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from environs import Env, ValidationError, validate

PLACEHOLDER = re.compile(
    r"change[-_ ]?me|replace[-_ ]?me|your[-_ ].*|<.*>|x{3,}|secret([-_ ]?key)?|password|default"
    r"|dev(elopment)?|test(ing)?|example|insecure|todo|none|null|root|admin|0+|(1234|abcd).*",
    re.IGNORECASE,
)
DEBUG = ("DEBUG", "FLASK_DEBUG")
NOT_EMPTY = validate.Regexp(r"\s*\S", error="Must not be empty.")
ENVIRONMENT = validate.OneOf(["production", "development"])


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
    db_pool_recycle: float = 300.0
    scheduler_interval: int = 10
    job_overdue: float = 300.0
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
    secret = secret_of_length(16 if app_env == "development" else 32)

    def debug_allowed(debug: bool) -> None:
        if debug and app_env == "production":
            raise ValidationError("Must be off when APP_ENV is production.")

    values = {
        "database_url": env.str("DATABASE_URL", validate=NOT_EMPTY),
        "cache_url": env.str("CACHE_URL", validate=NOT_EMPTY),
        "queue_url": env.str("QUEUE_URL", validate=NOT_EMPTY),
        "secret_key": env.str("SECRET_KEY", validate=secret),
        "secret_key_fallbacks": env.json("SECRET_KEY_FALLBACKS", (), validate=each(secret)),
        "diagnostics_key": env.str("DIAGNOSTICS_KEY", "", validate=lambda key: key and secret(key)),
        "release": env.str("APP_RELEASE", "unreleased"),
        "trusted_proxy_hops": env.int("TRUSTED_PROXY_HOPS", 0, validate=validate.Range(0)),
        "request_timeout": env.float("REQUEST_TIMEOUT", 30.0, validate=validate.Range(1)),
        "db_pool_size": env.int("DB_POOL_SIZE", 5, validate=validate.Range(1)),
        "db_pool_recycle": env.float("DB_POOL_RECYCLE", 300.0, validate=validate.Range(1)),
        "scheduler_interval": env.int("SCHEDULER_INTERVAL", 10, validate=validate.Range(1)),
        "job_overdue": env.float("JOB_OVERDUE", 300.0, validate=validate.Range(1)),
        "max_content_length": env.int("MAX_CONTENT_LENGTH", 1024**2, validate=validate.Range(1024)),
        "log_level": env.str("LOG_LEVEL", "INFO").upper(),
        "debug": any(
            [env.bool(name, False, validate=debug_allowed) for name in ("DEBUG", "FLASK_DEBUG")]
        ),
    }
    env.seal()
    values["secret_key_fallbacks"] = tuple(values["secret_key_fallbacks"])
    return Settings(**values)


def secret_of_length(least: int) -> Callable[[str], None]:
    """Return a validator that refuses short secrets and placeholders, without naming the value."""

    def validator(value: str) -> None:
        if PLACEHOLDER.fullmatch(value.strip()):
            raise ValidationError("Is a placeholder: generate a random value.")
        if len(value) < least:
            raise ValidationError(f"Must have at least {least} characters.")

    return validator


def each(validator: Callable[[str], None]) -> Callable[[object], None]:
    """Return a validator of a list of strings."""

    def validate_list(values: object) -> None:
        if not isinstance(values, list):
            raise ValidationError("Must be a JSON list of strings.")
        for value in values:
            validator(str(value))

    return validate_list
