"""Six apps with six inventories on one host are isolated from each other."""

from __future__ import annotations

import json

import pytest

from helpers.wait import wait_for

UNITS = ("nginx", "blog-web@?.service", "filedrop-web@?.service", "redis-server@*", "blog.target")
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
QUERY = """
import os, sqlalchemy
url = sqlalchemy.engine.make_url(os.environ["DATABASE_URL"]).set(database="{app}")
with sqlalchemy.create_engine(url).connect() as connection:
    print(connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM notes")).scalar())
"""


def test_each_app_serves_its_own_site(shop, blog_2, dice):
    assert shop.serves
    assert blog_2.serves
    assert dice.site.get("/").status_code == 200


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
    assert host.run(f"test -r {path.format('blog_2')}").succeeded
    assert host.run(f"flaskstack shop run test -r {path.format('blog_2')}").failed


@pytest.mark.parametrize("instance", ["cache", "queue"])
def test_an_app_connects_only_to_its_own_redis(host, instance):
    def reached(app):
        socket = f"/run/redis-{app}-{instance}/redis.sock"
        return host.run("flaskstack shop run python -c %s %s", CONNECT, socket)

    assert reached("shop").succeeded
    assert "PermissionError" in reached("blog_2").stderr


def test_an_app_cannot_connect_to_gunicorn_of_another(host):
    socket = host.check_output("readlink --canonicalize /srv/blog_2/web.sock")
    assert host.file(socket).is_socket
    assert (
        "PermissionError" in host.run("flaskstack shop run python -c %s %s", CONNECT, socket).stderr
    )


def test_an_app_reads_only_its_own_database(host):
    assert host.run("flaskstack shop run python -c %s", QUERY.format(app="shop")).succeeded
    refused = host.run("flaskstack shop run python -c %s", QUERY.format(app="blog_2"))
    assert "Access denied" in refused.stderr


def test_settings_of_one_inventory_change_only_its_own_app(host, blog_2, state):
    before = state()
    blog_2.play(
        "site.yml",
        "--skip-tags=access",
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
    own = host.check_output("cat /etc/redis/blog_2-cache.users")
    assert f"maxmemory {20 * 2**20}" in own, "the run changed nothing"
    assert blog_2.serves


def test_mysql_has_connections_for_every_app_without_a_restart(host):
    fact = "/etc/ansible/facts.d/flaskstack_mysql_{}.fact"
    needed = {
        app: json.loads(host.file(fact.format(app)).content_string)["connections"]
        for app in ("shop", "blog_2", "libs")
    }
    allowed = host.check_output("mysql --batch --skip-column-names -e 'SELECT @@max_connections'")
    assert int(allowed) == sum(needed.values()) + 10 > needed["shop"] + 10
    since = "systemctl show --timestamp=unix --value --property=ActiveEnterTimestamp mariadb"
    came = host.check_output(f"stat --format=%Y {fact.format('blog_2')}")
    assert int(host.check_output(since).strip("@")) < int(came)


@pytest.fixture
def started(host):
    """Return a function that lists when the units of other apps were started."""
    show = "systemctl show --property Id,ActiveEnterTimestampMonotonic,MainPID"
    return lambda: host.check_output(f"{show} {' '.join(UNITS)}")


def test_a_deploy_does_not_restart_other_apps(host, dice, started):
    # A previous instance may still finish its requests.
    leaving = "systemctl list-units --plain --no-legend --state=deactivating"
    wait_for(lambda: not host.check_output(leaving), 60)
    before, release = started(), host.file("/srv/dice/current").linked_to
    assert "filedrop-web@" in before
    dice.deploy()
    assert host.file("/srv/dice/current").linked_to != release
    assert started() == before


def test_a_second_run_changes_nothing(filedrop):
    done = filedrop.play("site.yml", "--skip-tags=access")
    assert done.changed == 0
    assert "No change" in done.output
    assert done.warnings == []


@pytest.mark.parametrize(
    "path", ["/etc/blog/current/environment", "/srv/blog/shared/instance/blog.sqlite"]
)
def test_the_user_of_an_app_cannot_read_files_of_another(host, path):
    read = "setpriv --reuid={0} --regid={0} --clear-groups head --bytes=1 {1}"
    assert host.run(read.format("blog", path)).rc == 0
    assert "Permission denied" in host.run(read.format("dice", path)).stderr


def test_the_user_of_an_app_cannot_bypass_nginx(host):
    program = "import socket; socket.socket(socket.AF_UNIX).connect('/srv/blog/web.sock')"
    connect = "setpriv --reuid={0} --regid={0} {1} python3 -c %s"
    assert host.run(connect.format("www-data", "--init-groups"), program).rc == 0
    refused = host.run(connect.format("dice", "--clear-groups"), program)
    assert "PermissionError" in refused.stderr
