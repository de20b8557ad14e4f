"""Posts: a list, and a form to write and edit them."""

from flask import Blueprint, abort, g, redirect, render_template, request, url_for

from blog import db
from blog.auth import login_required

blueprint = Blueprint("posts", __name__)


@blueprint.get("/")
def index():
    """Show all posts, newest first."""
    query = "SELECT post.*, name FROM post JOIN author ON author.id = author_id ORDER BY 1 DESC"
    return render_template("index.html", posts=db.connection().execute(query).fetchall())


@blueprint.route("/write", methods=["GET", "POST"])
@login_required
def write():
    """Write a post."""
    if request.method == "POST":
        query = "INSERT INTO post (title, body, author_id) VALUES (?, ?, ?)"
        with db.connection() as connection:
            connection.execute(query, (*_form(), g.author["id"]))
        return redirect(url_for("posts.index"))
    return render_template("write.html", post=None)


@blueprint.route("/<int:number>", methods=["GET", "POST"])
@login_required
def edit(number: int):
    """Edit one of your own posts, or delete it with an empty title."""
    query = "SELECT * FROM post WHERE id = ? AND author_id = ?"
    post = db.connection().execute(query, (number, g.author["id"])).fetchone()
    if not post:
        abort(404)
    if request.method == "POST":
        with db.connection() as connection:
            if request.form["title"].strip():
                query = "UPDATE post SET title = ?, body = ? WHERE id = ?"
                connection.execute(query, (*_form(), number))
            else:
                connection.execute("DELETE FROM post WHERE id = ?", (number,))
        return redirect(url_for("posts.index"))
    return render_template("write.html", post=post)


def _form() -> tuple[str, str]:
    title = request.form["title"].strip()
    if not title:
        abort(400, "A post needs a title.")
    return title, request.form["body"]
