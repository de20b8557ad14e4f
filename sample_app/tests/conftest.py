"""An app on SQLite and two fake Redis instances. Molecule tests it with MySQL and Redis."""

import re
import time
from dataclasses import replace
from pathlib import Path

import fakeredis
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event

from sample_app import cache, database, queues, resilient_redis
from sample_app.config import Settings
from sample_app.web import create_app

ROOT = Path(__file__).parent.parent
KEY = "the-diagnostics-key"


@event.listens_for(Engine, "connect")
def add_mysql_functions(connection, _record):
    """Give SQLite the functions of MySQL that the app uses."""
    connection.create_function("unix_timestamp", 0, lambda: int(time.time()))
    connection.create_function("connection_id", 0, lambda: id(connection))


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory):
    """Return the path of an empty database at the latest migration."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", f"sqlite:///{path}")
        command.upgrade(Config(ROOT / "alembic.ini"), "head")
    return path


@pytest.fixture
def settings(migrated_database, tmp_path):
    """Return settings with a database for this test."""
    path = tmp_path / "app.sqlite"
    path.write_bytes(migrated_database.read_bytes())
    return Settings(
        database_url=f"sqlite:///{path}",
        cache_url="redis://cache.invalid",
        queue_url="redis://queue.invalid",
        secret_key="only for tests",
        diagnostics_key=KEY,
        release="test-release",
        testing=True,
    )


@pytest.fixture
def redis_servers(monkeypatch):
    """Return the fake servers by name; every client connects to them."""
    servers = {name: fakeredis.FakeServer(server_type="redis") for name in ("cache", "queue")}

    def connect(url):
        name = re.match(r"redis://(\w+)\.invalid", url)[1]
        return fakeredis.FakeRedis(server=servers[name])

    monkeypatch.setattr(resilient_redis, "connect", connect)
    return servers


@pytest.fixture
def make_app(settings, redis_servers):
    """Return a function that creates an app with some settings changed."""
    yield lambda **changes: create_app(replace(settings, **changes))
    database.close()


@pytest.fixture
def stop(redis_servers):
    """Return a function that stops a Redis instance."""

    def stop(name):
        redis_servers[name].connected = False

    return stop


@pytest.fixture
def start(redis_servers):
    """Return a function that starts a Redis instance, and closes its breaker."""

    def start(name):
        redis_servers[name].connected = True
        {"cache": cache, "queue": queues}[name].instance.breaker.close()

    return start


@pytest.fixture
def app(make_app):
    """Return the app without a proxy."""
    return make_app()


@pytest.fixture
def client(app):
    """Return a client that keeps cookies, like a browser."""
    return app.test_client()


@pytest.fixture
def post_note(client):
    """Return a function that fills in the form and submits it."""

    def post(author="Ada", body="one two three", **fields):
        token = csrf_token(client.get("/").text)
        data = {"csrf_token": token, "author": author, "body": body, **fields}
        return client.post("/notes", data=data)

    return post


def csrf_token(page):
    """Return the token of a page's form."""
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
