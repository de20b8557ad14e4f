"""A WSGI app that does, and tells, what the tests of role gunicorn ask."""

import ctypes
import json
import os
import sys
import time
from urllib.parse import parse_qs


def answer(path, query, environ):
    """Return what can be said of `path` as JSON."""
    if path == "/environment":
        return dict(os.environ)
    if path == "/request":
        return {name: value for name, value in environ.items() if isinstance(value, str)}
    if path == "/sleep":
        time.sleep(float(query["seconds"]))
    if path == "/hang":
        # Unlike time.sleep() this keeps Python's lock, so that nothing else in the process runs.
        ctypes.PyDLL(None).sleep(int(query["seconds"]))
    if path == "/write":
        with open(query["file"], "w") as file:
            file.write("written\n")
    if path == "/read":
        with open(query["file"]) as file:
            return file.read()
    if path == "/log":
        print(query["text"], file=sys.stderr)
    return {"pid": os.getpid()}


def application(environ, start_response):
    """Answer any request; an OSError is an answer too."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    try:
        body = answer(environ["PATH_INFO"], query, environ)
    except OSError as error:
        body = {"error": type(error).__name__}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
