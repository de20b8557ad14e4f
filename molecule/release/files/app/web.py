"""The smallest app that a release can be made of."""

import os

WELL = True


def app(environ, start_response):
    """Say which release answers."""
    start_response(
        "200 OK" if WELL else "503 Service Unavailable", [("Content-Type", "text/plain")]
    )
    return [os.environ["APP_RELEASE"].encode()]
