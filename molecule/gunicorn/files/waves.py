"""A Flask app for gevent workers, without its own ProxyFix."""

import os
import sqlite3
import time

from flask import Flask, current_app, request, url_for
from gevent.monkey import is_module_patched

PATCHED_AT_IMPORT = all(map(is_module_patched, ("socket", "ssl", "threading", "time")))


def database():
    """Return a connection to a database in the instance folder; SQLite adds a log file there."""
    connection = sqlite3.connect(os.path.join(current_app.instance_path, "waves.db"))
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE IF NOT EXISTS waves (height INTEGER)")
    return connection


def create_app(name, tides=0):
    """Return the app. It reads local.py, which the role creates from `app_files`."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_pyfile(os.path.join(app.root_path, "local.py"))
    app.config.from_pyfile("more.py", silent=True)

    @app.get("/")
    def about():
        return {
            "factory": [name, tides],
            "patched": PATCHED_AT_IMPORT,
            "sea": app.config["SEA"],
            "pid": os.getpid(),
            "instance": os.path.realpath(app.instance_path),
            "environment": dict(os.environ),
        }

    @app.get("/where")
    def where():
        return {
            "self": url_for("where", _external=True),
            "address": request.remote_addr,
            "secure": request.is_secure,
        }

    @app.get("/sleep")
    def sleep():
        time.sleep(2)
        return {"pid": os.getpid()}

    @app.get("/waves/<int:height>")
    def wave(height):
        with database() as connection:
            connection.execute("INSERT INTO waves VALUES (?)", [height])
            rows = connection.execute("SELECT height FROM waves ORDER BY height")
            return {"heights": [row[0] for row in rows]}

    @app.get("/write")
    def write():
        try:
            with open(request.args["file"], "w") as file:
                file.write("written\n")
        except OSError as error:
            return {"error": type(error).__name__}
        return {"error": None}

    return app
