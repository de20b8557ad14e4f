"""A WSGI app that runs the actions of the tests of role gunicorn."""

import ctypes
import json
import os
import time
from urllib.parse import parse_qs


def answer(path, query, environ):
    """Run the action of `path` and return its result, which must be serializable as JSON."""
    if path == "/environment":
        return dict(os.environ)
    if path == "/request":
        return {name: value for name, value in environ.items() if isinstance(value, str)}
    if path == "/sleep":
        time.sleep(float(query["seconds"]))
    if path == "/hang":
        # Unlike time.sleep() this keeps the GIL, which blocks all threads of the process.
        ctypes.PyDLL(None).sleep(int(query["seconds"]))
    if path == "/write":
        with open(query["file"], "w") as file:
            file.write("written\n")
    return {"pid": os.getpid()}


def application(environ, start_response):
    """Respond with the result of the action, or with the name of its OSError."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    try:
        body = answer(environ["PATH_INFO"], query, environ)
    except OSError as error:
        body = {"error": type(error).__name__}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
