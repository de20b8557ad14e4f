"""Static addresses that change with the content, so that nginx may cache them for good."""

from __future__ import annotations

import functools
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask

from sample_app.models import utcnow


def init_app(app: Flask) -> None:
    """Add `?v=` to every `url_for('static', …)`, and the filters of the templates."""
    folder = Path(str(app.static_folder))

    @functools.cache
    def version(filename: str) -> str:
        path = folder / filename
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "0"

    @app.url_defaults
    def add_version(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and "filename" in values:
            values.setdefault("v", version(values["filename"]))

    app.add_template_filter(ago)


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Return how long ago `moment` (UTC) was, as a person would say it."""
    seconds = int(((now or utcnow()) - moment).total_seconds())
    if seconds < 5:
        return "just now"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} seconds ago"
