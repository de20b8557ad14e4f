"""One database connection per request, and the command that creates the tables."""

import sqlite3

import click
from flask import Flask, current_app, g


def connection() -> sqlite3.Connection:
    """Return this request's connection."""
    if "connection" not in g:
        g.connection = sqlite3.connect(current_app.config["DATABASE"], timeout=10)
        g.connection.row_factory = sqlite3.Row
        g.connection.execute("PRAGMA foreign_keys = ON")
    return g.connection


def close(_error: BaseException | None = None) -> None:
    """Close the connection."""
    if opened := g.pop("connection", None):
        opened.close()


@click.command("init-db")
def init_db() -> None:
    """Create empty tables. Existing data is deleted."""
    with current_app.open_resource("schema.sql", "r") as script:
        connection().executescript(script.read())
    click.echo("Initialized the database.")


def init_app(app: Flask) -> None:
    """Register the command, and close connections after each request."""
    app.teardown_appcontext(close)
    app.cli.add_command(init_db)
