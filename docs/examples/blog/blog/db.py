"""One connection to the database for each request, and the command that makes the tables."""

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
    """Close the connection, if there was one."""
    if opened := g.pop("connection", None):
        opened.close()


@click.command("init-db")
def init_db() -> None:
    """Make the tables. All that was in them is lost."""
    with current_app.open_resource("schema.sql", "r") as script:
        connection().executescript(script.read())
    click.echo("The database is empty and ready.")


def init_app(app: Flask) -> None:
    """Close connections after each request, and offer the command."""
    app.teardown_appcontext(close)
    app.cli.add_command(init_db)
