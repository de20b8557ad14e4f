"""Settings read from the environment, and refused when one is missing or not fit for use.

Every message names the variable, so that it can be fixed from the unit's journal alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

PLACEHOLDER = re.compile(
    r"change[-_ ]?me|replace[-_ ]?me|your[-_ ].*|<.*>|x{3,}|secret([-_ ]?key)?|password|default"
    r"|dev(elopment)?|test(ing)?|example|insecure|todo|none|null|root|admin|0+|(1234|abcd).*",
    re.IGNORECASE,
)
T = TypeVar("T", int, float, str)
ON = frozenset({"1", "true", "yes", "on"})


class ConfigError(RuntimeError):
    """The environment does not allow a start; the message says which variable and why."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the stack promises the app. Times in seconds; sizes are connections per process."""

    name: ClassVar[str]
    secret_length: ClassVar[int] = 16

    database_url: str
    cache_url: str
    queue_url: str
    secret_key: str
    secret_key_fallbacks: tuple[str, ...] = ()  # what they signed is valid, and they sign nothing
    hook_api_key: str = ""
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

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is connected or served."""
        for variable, value in (
            ("SECRET_KEY", self.secret_key),
            *(("SECRET_KEY_FALLBACKS", key) for key in self.secret_key_fallbacks),
            ("HOOK_API_KEY", self.hook_api_key),
        ):
            if variable == "HOOK_API_KEY" and not value:
                continue  # the hooks then answer that they are off
            if PLACEHOLDER.fullmatch(value.strip()):
                raise ConfigError(f"{variable} is a placeholder: give it a generated value")
            if len(value) < self.secret_length:
                raise ConfigError(f"{variable} is shorter than {self.secret_length} characters")
        if self.scheduler_lease <= self.scheduler_interval / 2:
            raise ConfigError("SCHEDULER_LEASE must be more than half of SCHEDULER_INTERVAL")

    @property
    def db_read_timeout(self) -> float:
        """Seconds to wait for MySQL's answer: above its statement limit, below Gunicorn's limit."""
        return max(1.0, 0.9 * self.request_timeout)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read one of the subclasses from `environ`; raises ConfigError."""
        read = Reader(environ)
        interval = read("SCHEDULER_INTERVAL", 10.0, float, least=1.0)
        return cls(
            database_url=read.required("DATABASE_URL"),
            cache_url=read.required("CACHE_URL"),
            queue_url=read.required("QUEUE_URL"),
            secret_key=read.required("SECRET_KEY"),
            secret_key_fallbacks=read.texts("SECRET_KEY_FALLBACKS"),
            hook_api_key=read("HOOK_API_KEY", "", str),
            release=read("APP_RELEASE", "unreleased", str),
            trusted_proxy_hops=read("TRUSTED_PROXY_HOPS", 0, int, least=0),
            request_timeout=read("REQUEST_TIMEOUT", 30.0, float, least=1.0),
            db_pool_size=read("DB_POOL_SIZE", 5, int, least=1),
            db_max_overflow=read("DB_MAX_OVERFLOW", 0, int, least=0),
            db_pool_recycle=read("DB_POOL_RECYCLE", 300.0, float, least=1.0),
            db_pool_timeout=read("DB_POOL_TIMEOUT", 3.0, float, least=0.1),
            scheduler_interval=interval,
            scheduler_lease=read("SCHEDULER_LEASE", max(5.0, 1.5 * interval), float, least=2.0),
            max_content_length=read("MAX_CONTENT_LENGTH", 1024 * 1024, int, least=1024),
            log_level=read("LOG_LEVEL", "INFO", str).upper(),
            debug=any(environ.get(name, "").lower() in ON for name in ("DEBUG", "FLASK_DEBUG")),
        )


class Production(Settings):
    """What a server runs: long secrets, no debugger."""

    name = "production"
    secret_length = 32

    def __post_init__(self) -> None:
        """Refuse the debugger: it lets a visitor run code."""
        super().__post_init__()
        if self.debug:
            raise ConfigError("DEBUG and FLASK_DEBUG are refused when APP_ENV=production")


class Development(Settings):
    """The same on a laptop; the debugger is allowed."""

    name = "development"


class Testing(Settings):
    """For the test suite, which passes every value itself."""

    name = "testing"
    secret_length = 1


ENVIRONMENTS: dict[str, type[Settings]] = {c.name: c for c in (Production, Development, Testing)}


class Reader:
    """Typed look-ups in an environment whose errors name the variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def required(self, variable: str) -> str:
        """Return the value; raises ConfigError when it is missing or empty."""
        value = self.environ.get(variable, "").strip()
        if not value:
            raise ConfigError(f"{variable} is not set")
        return value

    def texts(self, variable: str) -> tuple[str, ...]:
        """Return a JSON list of texts, none when there is none; raises ConfigError."""
        try:
            value = json.loads(self.environ.get(variable, "").strip() or "[]")
        except ValueError:
            value = None
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ConfigError(f'{variable} is not a list of texts in JSON, such as ["one"]')
        return tuple(value)

    def __call__(
        self, variable: str, default: T, kind: Callable[[str], T], least: float | None = None
    ) -> T:
        """Return the value as `kind`, or `default`; raises ConfigError below `least`."""
        text = self.environ.get(variable, "").strip()
        if not text:
            return default
        try:
            value = kind(text)
        except ValueError:
            raise ConfigError(f"{variable} is not a number: {text!r}") from None
        if least is not None and not isinstance(value, str) and value < least:
            raise ConfigError(f"{variable} must be at least {least:g}, not {text}")
        return value


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings for APP_ENV (default: production, the strict one); raises ConfigError."""
    environ = os.environ if environ is None else environ
    name = environ.get("APP_ENV", "").strip() or Production.name
    if name not in ENVIRONMENTS:
        raise ConfigError(f"APP_ENV must be one of {', '.join(ENVIRONMENTS)}, not {name!r}")
    return ENVIRONMENTS[name].from_environ(environ)
