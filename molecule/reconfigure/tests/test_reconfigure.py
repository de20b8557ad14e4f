"""Every changed setting, asked of the process that it is for."""

from __future__ import annotations

import re

import pytest
import requests
from asking import Database, Site, children, main_pid
from waiting import wait_for

WEB = "shop-web@a.service"


@pytest.fixture
def site(address):
    """Return the site under its new name and prefix."""
    return Site(address, "www.example.com", "/guests")


@pytest.fixture
def sql(host):
    """Return the database as its operator sees it."""
    return Database(host)


@pytest.fixture
def environ(host):
    """Return what the running web server has in its environment."""
    entries = host.check_output(f"tr '\\0' '\\n' < /proc/{main_pid(host, WEB)}/environ").splitlines()
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("wait_timeout", "300"),
        ("max_connections", "77"),
        ("innodb_buffer_pool_size", str(160 * 2**20)),
        ("innodb_lock_wait_timeout", "10"),
        ("net_read_timeout", "20"),
    ],
)
def test_mysql_has_the_new_values(sql, variable, value):
    assert sql.variable(variable) == value


def test_mysql_measures_slowness_anew(sql):
    assert float(sql.variable("long_query_time")) == 3


@pytest.mark.parametrize(("instance", "variable", "mib"), [("cache", "CACHE_URL", 40), ("queue", "QUEUE_URL", 48)])
def test_redis_has_its_new_memory(host, instance, variable, mib):
    ask = f"import os, redis; print(redis.from_url(os.environ['{variable}']).info('memory')['maxmemory'])"
    assert int(host.check_output("shop-run python -c %s", ask)) == mib * 2**20


def test_gunicorn_has_its_new_workers(host):
    assert len(children(host, main_pid(host, WEB))) == 4


def test_the_environment_reached_the_process(environ):
    assert environ["GREETING"] == 'it\'s "quoted" $HOME \\ 100 %'
    assert environ["REQUEST_TIMEOUT"] == "20"
    assert (environ["DB_POOL_SIZE"], environ["DB_POOL_RECYCLE"]) == ("3", "200")
    assert environ["APP_PREFIX"] == "/guests"


@pytest.mark.parametrize("secret", ["database", "cache", "queue"])
def test_new_passwords_are_in_use_and_old_ones_refused(host, environ, secret):
    name = {"database": "DATABASE_URL", "cache": "CACHE_URL", "queue": "QUEUE_URL"}[secret]
    login = {
        "database": "import pymysql; pymysql.connect(user='shop', password='{}', unix_socket='/run/mysqld/mysqld.sock')",
        "cache": "import redis; redis.from_url('unix://shop:{}@/run/redis-cache/redis.sock').ping()",
        "queue": "import redis; redis.from_url('unix://shop:{}@/run/redis-queue/redis.sock').ping()",
    }[secret]
    old = {"database": "database", "cache": "cache", "queue": "queue"}[secret]
    inventory = host.ansible.get_variables()["inventory_dir"]
    with open(f"{inventory}/secrets/{old}.txt") as file:
        before = file.read().strip()
    now = re.search(r"shop:([A-Za-z0-9]+)@", environ[name]).group(1)
    assert now != before
    assert host.run("shop-run python -c %s", login.format(now)).succeeded
    refused = host.run("shop-run python -c %s", login.format(before))
    assert refused.failed
    assert "denied" in refused.stderr.lower() or "wrongpass" in refused.stderr.lower()


def test_the_site_is_ready(site):
    assert site.get("/readyz").status_code == 200


def test_every_link_works_under_the_prefix(site):
    page = site.get("/")
    assert page.status_code == 200
    links = set(re.findall(r'(?:href|src|action)="([^"#]+)', page.text))
    assert len(links) > 4
    for link in links:
        assert link.startswith("/guests/"), link
        answer = site.get(link.removeprefix("/guests"))
        assert answer.status_code in (200, 405), link  # 405: where the form is posted to
    assert site.get("/whoami").json()["prefix"] == "/guests"


def test_a_note_can_be_written_under_the_prefix(site):
    page = site.get("/")
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text).group(1)
    form = {"csrf_token": token, "author": "Ada", "body": "Under a prefix"}
    answer = site.post("/notes", data=form, cookies=page.cookies)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/guests/#note-")


def test_outside_the_prefix_is_nothing(address):
    answer = requests.get(f"http://{address}/whoami", headers={"Host": "www.example.com"}, timeout=10)
    assert answer.status_code == 404


def test_the_old_name_is_refused(address):
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{address}/guests/", headers={"Host": "shop.example.com"}, timeout=10)


def test_the_new_upload_limit_holds(site):
    assert site.post("/notes", data=b"x" * (3 * 2**19)).status_code == 413


def test_a_declared_load_balancer_is_believed(site):
    said = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}
    seen = site.get("/whoami", headers=said).json()
    assert (seen["remote_addr"], seen["scheme"]) == ("198.51.100.7", "https")
    assert seen["url"] == "https://www.example.com/guests/"


def test_more_workers_and_a_renamed_process(host):
    running = host.check_output("systemctl list-units --state running --plain --no-legend 'shop-*'")
    names = {line.split()[0] for line in running.splitlines()}
    assert {"shop-worker@1.service", "shop-worker@2.service", "shop-clock@1.service"} <= names
    assert "shop-scheduler@1.service" not in names


def test_the_renamed_scheduler_ticks_at_its_new_pace(sql):
    last = int(sql.value("SELECT MAX(slot) FROM shop.ticks"))
    wait_for(lambda: int(sql.value(f"SELECT COUNT(*) FROM shop.ticks WHERE slot > {last}")) >= 3, 30)
    slots = [int(row[0]) for row in sql.rows(f"SELECT slot FROM shop.ticks WHERE slot > {last} ORDER BY slot")]
    assert slots[1] - slots[0] == 5


def test_the_host_has_its_new_settings(host):
    assert host.check_output("date +%Z") in ("CET", "CEST")
    assert "SystemMaxUse=123M" in host.check_output("systemd-analyze cat-config systemd/journald.conf")
