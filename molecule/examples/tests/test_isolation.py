"""Five apps with five inventories on one host are isolated from each other."""

from __future__ import annotations

import json

import pytest

CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
QUERY = """
import os, sqlalchemy
url = sqlalchemy.engine.make_url(os.environ["DATABASE_URL"]).set(database="shop")
with sqlalchemy.create_engine(url).connect() as connection:
    print(connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM notes")).scalar())
"""


def test_each_app_serves_its_own_site(shop, shop_libs, dice, blog, filedrop):
    assert [app.name for app in (shop, shop_libs, dice, blog, filedrop) if not app.serves] == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/{}/current/environment",
        "/etc/{}/current/gunicorn.conf.py",
        "/srv/{}/shared/uploads",
        "/var/lib/{}",
    ],
)
def test_an_app_reads_only_its_own_files(host, path):
    assert host.run(f"flaskstack shop run test -r {path.format('shop')}").succeeded
    assert host.run(f"test -r {path.format('shop_libs')}").succeeded
    assert host.run(f"flaskstack shop run test -r {path.format('shop_libs')}").failed


@pytest.mark.parametrize(
    "socket",
    ["/run/redis-shop-cache/redis.sock", "/run/redis-shop-queue/redis.sock", "/srv/shop/web.sock"],
)
def test_an_app_cannot_connect_to_sockets_of_another(host, socket):
    socket = host.check_output("readlink --canonicalize %s", socket)
    assert host.file(socket).is_socket
    refused = host.run("flaskstack shop_libs run python -c %s %s", CONNECT, socket)
    assert "PermissionError" in refused.stderr


def test_an_app_reads_only_its_own_database(host):
    assert host.run("flaskstack shop run python -c %s", QUERY).succeeded
    assert "Access denied" in host.run("flaskstack shop_libs run python -c %s", QUERY).stderr


@pytest.mark.parametrize(
    "path", ["/etc/blog/current/environment", "/srv/blog/shared/instance/blog.sqlite"]
)
def test_the_user_of_an_app_cannot_read_files_of_another(host, path):
    read = "setpriv --reuid={0} --regid={0} --clear-groups head --bytes=1 {1}"
    assert host.run(read.format("blog", path)).rc == 0
    assert "Permission denied" in host.run(read.format("dice", path)).stderr


def test_the_user_of_an_app_cannot_bypass_nginx(host):
    connect = "setpriv --reuid={0} --regid={0} {1} python3 -c %s /srv/blog/web.sock"
    assert host.run(connect.format("www-data", "--init-groups"), CONNECT).rc == 0
    refused = host.run(connect.format("dice", "--clear-groups"), CONNECT)
    assert "PermissionError" in refused.stderr


def test_mysql_has_connections_for_every_app_without_a_restart(host, sql):
    fact = "/etc/ansible/facts.d/flaskstack_mysql_{}.fact"
    needed = [
        json.loads(host.file(fact.format(app)).content_string)["connections"]
        for app in ("shop", "shop_libs")
    ]
    assert int(sql.variable("max_connections")) == sum(needed) + 10
    since = "systemctl show --timestamp=unix --value --property=ActiveEnterTimestamp mariadb"
    added_at = host.check_output(f"stat --format=%Y {fact.format('shop_libs')}")
    assert int(host.check_output(since).strip("@")) < int(added_at)


def test_settings_of_one_inventory_change_only_its_own_app(host, shop_libs, state):
    before = state()
    shop_libs.play(
        "site.yml",
        "--tags=base,mysql,redis",
        base_timezone="Asia/Tokyo",
        base_journal_size=99,
        base_swap_size=300,
        mysql_wait_timeout=4000,
        mysql_slow_query_time=7,
        mysql_innodb_buffer_pool_size=64,
        redis_cache_maxmemory=20,
        host_memory=1536,
    )
    assert state() == before
    own = host.check_output("cat /etc/redis/shop_libs-cache.users")
    assert "maxmemory 20mb" in own, "the run changed nothing"
    assert shop_libs.serves
