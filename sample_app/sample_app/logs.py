"""Structured logs: one JSON object a line on stderr, which systemd hands to the journal.

`request_id` is kept in a context variable, so that every line written while a request or its job
is worked on carries it, whichever library wrote the line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_context: ContextVar[dict[str, Any] | None] = ContextVar("log_context", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_PRIVATE = frozenset({"arguments", "kwargs"})  # RQ passes a job's arguments along


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line logged inside, on top of those bound outside."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def current_request_id() -> str | None:
    """Return the id of the request (or of the request behind the job) being worked on."""
    return (_context.get() or {}).get("request_id")


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON."""

    def __init__(self, release: str) -> None:
        super().__init__()
        self.release = release

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; `extra=` fields are kept, a traceback goes into its own field."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat("T", "milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": None,
            "release": self.release,
            "pid": os.getpid(),
        }
        line.update(_context.get() or {})
        line.update(
            (key, value)
            for key, value in vars(record).items()
            if key not in _STANDARD and key not in _PRIVATE
        )
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(release: str, level: str = "INFO") -> None:
    """Send everything to stderr as JSON, warnings and uncaught exceptions too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(release))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(
        args.exc_type, args.exc_value, args.exc_traceback
    )
    for server in ("gunicorn.error", "gunicorn.access"):  # there when Gunicorn loads the app
        for existing in logging.getLogger(server).handlers:
            existing.setFormatter(handler.formatter)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    """Log what would end the process, unless it is the user's own Ctrl-C."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    logging.getLogger("sample_app").critical(
        "uncaught: %s", error, exc_info=(kind, error or kind(), trace)
    )
