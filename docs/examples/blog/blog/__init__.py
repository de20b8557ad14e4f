"""A blog: authors write posts, and everyone reads them."""

import os

from flask import Flask

from blog import auth, db, posts


def create_app() -> Flask:
    """Return the app; the database is a file in the instance folder."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("SECRET_KEY", "dev"),
        DATABASE=os.path.join(app.instance_path, "blog.sqlite"),
        SESSION_COOKIE_SAMESITE="Lax",  # other sites cannot post for an author
    )
    app.config.from_pyfile("config.py", silent=True)
    os.makedirs(app.instance_path, exist_ok=True)

    db.init_app(app)
    auth.init_app(app)
    app.register_blueprint(posts.blueprint)
    return app
