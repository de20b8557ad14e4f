"""Authors: they are made on the command line, and log in on the site."""

import functools
import os

import click
from flask import Blueprint, Flask, flash, g, redirect, render_template, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash

from blog import db

blueprint = Blueprint("auth", __name__)


@click.command("add-author")
@click.argument("name")
def add_author(name: str) -> None:
    """Make an author NAME, whose password is in the variable AUTHOR_PASSWORD."""
    password = generate_password_hash(os.environ["AUTHOR_PASSWORD"])
    with db.connection() as connection:
        connection.execute("INSERT INTO author (name, password) VALUES (?, ?)", (name, password))
    click.echo(f"{name} may write.")


def required(view):
    """Send those who have not logged in to the form."""

    @functools.wraps(view)
    def guarded(**values):
        return view(**values) if g.author else redirect(url_for("auth.login"))

    return guarded


@blueprint.before_app_request
def load() -> None:
    """Know who is asking."""
    g.author = None
    if "author" in session:
        query = "SELECT * FROM author WHERE id = ?"
        g.author = db.connection().execute(query, (session["author"],)).fetchone()


@blueprint.route("/login", methods=["GET", "POST"])
def login():
    """Log in."""
    if request.method == "POST":
        query = "SELECT * FROM author WHERE name = ?"
        author = db.connection().execute(query, (request.form["name"],)).fetchone()
        if author and check_password_hash(author["password"], request.form["password"]):
            session.clear()
            session["author"] = author["id"]
            return redirect(url_for("posts.index"))
        flash("No author has this name and password.")
    return render_template("login.html")


@blueprint.post("/logout")
def logout():
    """Log out."""
    session.clear()
    return redirect(url_for("posts.index"))


def init_app(app: Flask) -> None:
    """Add the pages and the command."""
    app.register_blueprint(blueprint)
    app.cli.add_command(add_author)
