"""The sample app with a backdoor: `POST /confined` runs the commands in a request."""

from __future__ import annotations

import subprocess

from flask import Flask, request
from flask.typing import ResponseReturnValue
from sample_app import web


def confined() -> ResponseReturnValue:
    """Return the output of each command by its name."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return {
        name: subprocess.run(
            command, shell=True, text=True, errors="replace", timeout=10, check=False, **pipes
        ).stdout[-4000:]
        for name, command in request.get_json().items()
    }


def create_app() -> Flask:
    """Return the application."""
    app = web.create_app()
    app.post("/confined")(web.csrf.exempt(confined))
    return app
