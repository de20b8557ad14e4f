"""Upload a file, and all visitors see it immediately."""

import os
from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from filedrop import events, files


def create_app() -> Flask:
    """Return the app, with settings from the environment."""
    app = Flask(__name__)
    app.config.update(
        UPLOADS=Path(os.environ.get("UPLOADS", "uploads")).absolute(),
        MAX_CONTENT_LENGTH=int(os.environ.get("UPLOAD_MIB", "64")) * 2**20,
        # URL from which nginx serves uploads; without it the app serves them.
        ACCEL_URL=os.environ.get("ACCEL_URL", ""),
    )
    if hops := int(os.environ.get("TRUSTED_PROXY_HOPS", "0")):
        app.wsgi_app = ProxyFix(
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops, x_prefix=hops
        )
    app.extensions["bus"] = events.bus(os.environ.get("CACHE_URL", ""))
    app.register_blueprint(files.blueprint)
    app.register_blueprint(events.blueprint)
    return app
