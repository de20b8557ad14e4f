"""A minimal app to build releases of."""

import os


def app(environ, start_response):
    """Return the release."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ["APP_RELEASE"].encode()]
