"""A minimal app to build releases of."""

import os
import threading
import time
from pathlib import Path

WELL = True
GO = Path(os.environ["STATE_DIRECTORY"], "go")
waiting = []


def app(environ, start_response):
    """Return the release; /slow waits to be released, /waiting counts the waiting requests."""
    said = os.environ["APP_RELEASE"]
    if environ["PATH_INFO"] == "/slow":
        waiting.append(threading.get_ident())
        while not GO.exists():
            time.sleep(0.1)
        waiting.pop()
    if environ["PATH_INFO"] == "/waiting":
        said = str(len(waiting))
    start_response(
        "200 OK" if WELL else "503 Service Unavailable", [("Content-Type", "text/plain")]
    )
    return [said.encode()]
