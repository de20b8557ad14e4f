"""An app on SQLite and two fake Redis instances: quick, and needing no server.

What depends on MySQL's and Redis' own behaviour is shown on a host by the project's scenarios.
"""

import re
from dataclasses import replace
from pathlib import Path

import fakeredis
import pytest
from alembic import command
from alembic.config import Config

from sample_app import cache, config, database, queues
from sample_app.redis_guard import GuardedRedis
from sample_app.web import create_app

FOLDER = Path(__file__).parent.parent
KEY = "the-key-of-the-hooks"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Return the path of a database that the real migrations have made."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", f"sqlite:///{path}")
        command.upgrade(Config(FOLDER / "alembic.ini"), "head")
    return path


@pytest.fixture
def settings(empty_database, tmp_path):
    """Return settings with a database of the test's own."""
    path = tmp_path / "app.sqlite"
    path.write_bytes(empty_database.read_bytes())
    return config.Testing(
        database_url=f"sqlite:///{path}",
        cache_url="redis://cache.invalid",
        queue_url="redis://queue.invalid",
        secret_key="only for tests",
        hook_api_key=KEY,
        release="test-release",
    )


@pytest.fixture
def make_app(settings, redis_servers):
    """Return a function that makes an app with some settings changed."""

    def make(**changes):
        app = create_app(replace(settings, **changes))
        install(redis_servers)
        return app

    yield make
    database.close()


@pytest.fixture
def redis_servers():
    """Return the fake servers by name; set `connected = False` on one to stop it."""
    return {name: fakeredis.FakeServer(server_type="redis") for name in ("cache", "queue")}


def install(servers):
    """Put fake servers behind the two guards."""
    cache.guard = GuardedRedis("cache", fakeredis.FakeRedis(server=servers["cache"]))
    queues.guard = GuardedRedis("queue", fakeredis.FakeRedis(server=servers["queue"]))


@pytest.fixture
def stop(redis_servers):
    """Return a function that stops a Redis instance, as `systemctl stop` would."""

    def do(name):
        redis_servers[name].connected = False

    return do


@pytest.fixture
def start(redis_servers):
    """Return a function that starts a Redis instance again, its breaker's pause over."""

    def do(name):
        redis_servers[name].connected = True
        {"cache": cache, "queue": queues}[name].guard.breaker.close()

    return do


@pytest.fixture
def app(make_app):
    """Return the app as a browser meets it without a proxy."""
    return make_app()


@pytest.fixture
def client(app):
    """Return a browser."""
    return app.test_client()


@pytest.fixture
def runner(app):
    """Return a command line."""
    return app.test_cli_runner()


@pytest.fixture
def post_note(client):
    """Return a function that fills the form in and sends it."""

    def post(author="Ada", body="one two three", browser=client, home="/", **fields):
        page = browser.get(home, base_url=fields.pop("base_url", None)).text
        data = {"csrf_token": csrf_token(page), "author": author, "body": body, **fields}
        action = re.search(r'action="([^"]+)"', page)[1]
        return browser.post(action, data=data)

    return post


def csrf_token(page):
    """Return the token in a page's form."""
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
