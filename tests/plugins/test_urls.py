"""Drivers parse the URLs correctly, whatever the password."""

import configparser

import pymysql
import pytest
import redis
import sqlalchemy

from urls import database_url, needing_encoding, redis_url, site_urls, with_login

PASSWORDS = ["plain", "as,Ansible:makes-them._~", "p@ss:w/ord?#%&+ []", "ünï€"]
DATABASE = {
    "driver": "mysql+pymysql",
    "user": "shop",
    "password": "secret",
    "host": "",
    "port": 3306,
    "name": "shop",
    "socket": "/run/mysqld/mysqld.sock",
    "ca": "",
    "charset": "utf8mb4",
    "options": {},
}
REDIS = {
    "user": "shop",
    "password": "secret",
    "host": "",
    "port": 6379,
    "socket": "/run/redis-cache/redis.sock",
    "ca": "",
}


def connect_arguments(url):
    """Return the arguments that SQLAlchemy passes to the driver."""
    engine = sqlalchemy.create_engine(url)
    return engine.dialect.create_connect_args(engine.url)[1]


@pytest.mark.parametrize("password", PASSWORDS)
def test_database_through_the_socket(password):
    arguments = connect_arguments(database_url(DATABASE | {"password": password}))
    assert arguments["password"] == password
    assert arguments["unix_socket"] == "/run/mysqld/mysqld.sock"
    assert arguments["database"] == "shop"
    assert arguments["charset"] == "utf8mb4"
    assert "host" not in arguments
    assert "ssl" not in arguments


@pytest.mark.parametrize("password", PASSWORDS)
def test_database_over_tls(password):
    parts = DATABASE | {"host": "10.0.0.5", "ca": "/etc/shop/ca.pem", "password": password}
    arguments = connect_arguments(database_url(parts))
    assert arguments["password"] == password
    assert (arguments["host"], arguments["port"]) == ("10.0.0.5", 3306)
    assert arguments["ssl"] == {"ca": "/etc/shop/ca.pem"}
    assert "unix_socket" not in arguments


def test_pymysql_verifies_the_server_with_a_ca(tmp_path):
    authority = pymysql.connections.ssl.get_default_verify_paths().cafile
    url = database_url(DATABASE | {"host": "db.example", "ca": authority})
    arguments = connect_arguments(url) | {"defer_connect": True}
    connection = pymysql.connect(**arguments)
    assert connection._ssl_required
    assert connection.ctx.check_hostname
    assert connection.ctx.verify_mode == pymysql.connections.ssl.CERT_REQUIRED


def test_database_options_win():
    arguments = connect_arguments(database_url(DATABASE | {"options": {"charset": "latin1"}}))
    assert arguments["charset"] == "latin1"


def test_empty_charset_is_omitted():
    assert "charset" not in database_url(DATABASE | {"charset": ""})
    assert (
        connect_arguments(database_url(DATABASE | {"charset": "utf8mb3"}))["charset"] == "utf8mb3"
    )


def test_generated_passwords_need_no_percent_sign():
    assert "%" not in database_url(DATABASE | {"password": "as,Ansible:makes-them._~"})


def test_options_reach_the_driver_without_a_percent_sign():
    """Alembic's configuration would interpolate it."""
    options = {"init_command": "SET time_zone='UTC', sql_mode=(SELECT @@sql_mode)", "x": "/a:b"}
    options = {name: value.replace("@", "") for name, value in options.items()}
    url = database_url(DATABASE | {"options": options})
    assert "%" not in url
    parser = configparser.ConfigParser()
    parser["alembic"] = {"sqlalchemy.url": url}
    arguments = connect_arguments(parser["alembic"]["sqlalchemy.url"])
    assert arguments["init_command"] == options["init_command"]


def test_options_that_need_a_percent_sign_are_named():
    options = {"good": "a=b, (c) 'd'", "flag": True, "number": 5, "and": "a&b", "plus": "+00:00"}
    assert needing_encoding(options) == ["and", "plus"]


def test_ipv6_addresses():
    assert connect_arguments(database_url(DATABASE | {"host": "fd00::5"}))["host"] == "fd00::5"
    assert redis.ConnectionPool.from_url(redis_url(REDIS | {"host": "fd00::5", "port": 6379}))


@pytest.mark.parametrize("password", PASSWORDS)
def test_redis_through_the_socket(password):
    pool = redis.ConnectionPool.from_url(redis_url(REDIS | {"password": password}))
    assert pool.connection_class is redis.UnixDomainSocketConnection
    assert pool.connection_kwargs["path"] == "/run/redis-cache/redis.sock"
    assert pool.connection_kwargs["username"] == "shop"
    assert pool.connection_kwargs["password"] == password
    assert pool.connection_kwargs["db"] == 0


@pytest.mark.parametrize("password", PASSWORDS)
def test_redis_over_tls(password):
    parts = REDIS | {"password": password, "host": "10.0.0.6", "port": 6380, "ca": "/etc/ca.pem"}
    pool = redis.ConnectionPool.from_url(redis_url(parts))
    assert pool.connection_class is redis.SSLConnection
    assert pool.connection_kwargs["password"] == password
    assert pool.connection_kwargs["host"] == "10.0.0.6"
    assert pool.connection_kwargs["port"] == 6380
    assert pool.connection_kwargs["ssl_ca_certs"] == "/etc/ca.pem"
    # Celery requires it.
    assert pool.connection_kwargs["ssl_cert_reqs"] == "required"


def test_redis_on_this_host_without_tls():
    pool = redis.ConnectionPool.from_url(redis_url(REDIS | {"host": "127.0.0.1"}))
    assert pool.connection_class is redis.Connection


@pytest.mark.parametrize(("url", "parts"), [(database_url, DATABASE), (redis_url, REDIS)])
def test_no_url_without_a_password(url, parts):
    assert url(parts | {"password": ""}) == ""


def test_login_is_replaced():
    url = database_url(DATABASE)
    environment = {
        "DATABASE_URL": url,
        "PEEWEE_URL": "mysql://shop:secret@127.0.0.1/shop",
        "DB_PASSWORD": "secret",
        "MYSQL_USERNAME": "shop",
        "DB_NAME": "shop",  # has the same name as the user
        "COPY_URL": "mysql://myshop:secret2@elsewhere/shop",
        "NUMBER": 5,
    }
    migration = {"user": "shop_migrate", "password": "other"}
    elsewhere = {url: "mysql+pymysql://elsewhere"}
    assert with_login(environment, DATABASE, migration, elsewhere) == {
        "DATABASE_URL": "mysql+pymysql://elsewhere",
        "PEEWEE_URL": "mysql://shop_migrate:other@127.0.0.1/shop",
        "DB_PASSWORD": "other",
        "MYSQL_USERNAME": "shop_migrate",
    }
    changed = with_login(environment, DATABASE, {"user": "shop_jobs", "password": "secret"})
    assert changed["DATABASE_URL"].startswith("mysql+pymysql://shop_jobs:secret@")
    assert "DB_PASSWORD" not in changed


def test_url_is_replaced_without_a_password():
    """An app may have the complete URLs instead of passwords."""
    environment = {"DATABASE_URL": "mysql://a:b%2F@host/shop", "EMPTY": "", "USER": "shop"}
    nobody = {"user": "shop", "password": ""}
    urls = {environment["DATABASE_URL"]: "mysql://m:c@host/shop", "": "x"}
    other = {"user": "shop_migrate", "password": ""}
    assert with_login(environment, nobody, other, urls) == {"DATABASE_URL": "mysql://m:c@host/shop"}


@pytest.mark.parametrize(
    ("https", "port", "prefix", "urls"),
    [
        (True, 443, "", ["https://shop.example/", "https://www.shop.example/"]),
        (True, "8443", "/a", ["https://shop.example:8443/a/", "https://www.shop.example:8443/a/"]),
        (False, 443, "", ["http://shop.example/", "http://www.shop.example/"]),
    ],
)
def test_site_urls(https, port, prefix, urls):
    assert site_urls(["shop.example", "www.shop.example"], https, port, prefix) == urls
