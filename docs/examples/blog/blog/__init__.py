"""A blog: posts that anybody reads and authors write."""

import os

from flask import Flask

from blog import auth, db, posts


def create_app() -> Flask:
    """Return the app; the database is a file of its instance folder."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("SECRET_KEY", "dev"),
        DATABASE=os.path.join(app.instance_path, "blog.sqlite"),
        SESSION_COOKIE_SAMESITE="Lax",  # no other site can post in an author's name
    )
    app.config.from_pyfile("config.py", silent=True)
    os.makedirs(app.instance_path, exist_ok=True)

    db.init_app(app)
    auth.init_app(app)
    app.register_blueprint(posts.blueprint)
    return app
