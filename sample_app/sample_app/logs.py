"""Structured logs: one JSON object per line on stderr, which systemd sends to the journal.

The request id is kept in a context variable, so that every line logged while a request or its job
is processed has it, including the lines of libraries.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger import core
from pythonjsonlogger.json import JsonFormatter

_context: ContextVar[dict[str, Any] | None] = ContextVar("log_context", default=None)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line that is logged inside the block."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def current_request_id() -> str | None:
    """Return the id of the request that is processed, or of the request that queued this job."""
    return (_context.get() or {}).get("request_id")


class ContextFormatter(JsonFormatter):
    """Format a record as JSON, with the bound fields."""

    def __init__(self, release: str) -> None:
        super().__init__(
            ["levelname", "name", "message", "process"],
            rename_fields={
                "levelname": "level",
                "name": "logger",
                "process": "pid",
                "exc_info": "traceback",
            },
            static_fields={"release": release},
            defaults={"request_id": None},
            # RQ logs a job's arguments, which may be private.
            reserved_attrs=[*core.RESERVED_ATTRS, "arguments", "kwargs"],
            json_ensure_ascii=False,
            timestamp=True,
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a line."""
        return super().process_log_record(log_data | (_context.get() or {}))


def configure(release: str, level: str = "INFO") -> None:
    """Log everything as JSON to stderr, including warnings and uncaught exceptions."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ContextFormatter(release))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    for server in ("gunicorn.error", "gunicorn.access"):
        for existing in logging.getLogger(server).handlers:
            existing.setFormatter(handler.formatter)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    logging.getLogger("sample_app").critical(
        "uncaught exception: %s", error, exc_info=(kind, error or kind(), trace)
    )
