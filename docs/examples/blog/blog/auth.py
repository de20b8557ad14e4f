"""Authors: created on the command line, logged in on the site."""

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
    """Create the author NAME with the password in AUTHOR_PASSWORD."""
    password = generate_password_hash(os.environ["AUTHOR_PASSWORD"])
    with db.connection() as connection:
        connection.execute("INSERT INTO author (name, password) VALUES (?, ?)", (name, password))
    click.echo(f"Created author {name}.")


def login_required(view):
    """Redirect to the login form unless an author is logged in."""

    @functools.wraps(view)
    def wrapped(**values):
        return view(**values) if g.author else redirect(url_for("auth.login"))

    return wrapped


@blueprint.before_app_request
def load_author() -> None:
    """Load the author who is logged in."""
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
        flash("Wrong name or password.")
    return render_template("login.html")


@blueprint.post("/logout")
def logout():
    """Log out."""
    session.clear()
    return redirect(url_for("posts.index"))


def init_app(app: Flask) -> None:
    """Register the pages and the command."""
    app.register_blueprint(blueprint)
    app.cli.add_command(add_author)
