"""An app with all libraries of the table in docs/your-app.md."""

import os

from flask import Flask

from libs import databases, jobs, visitors


def create_app() -> Flask:
    """Return the app, which creates its tables when it starts."""
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=os.environ["SECRET_KEY"],
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
        CACHE_TYPE="RedisCache",
        CACHE_REDIS_URL=os.environ["CACHE_URL"],
        RATELIMIT_STORAGE_URI=os.environ["RATELIMIT_STORAGE_URI"],
        SESSION_TYPE="redis",
        SESSION_REDIS=jobs.cache,
    )
    for part in (databases, jobs, visitors):
        part.init_app(app)
        app.register_blueprint(part.blueprint)
    with app.app_context():
        databases.db.create_all()
    return app
