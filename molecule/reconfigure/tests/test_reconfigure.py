"""Every changed setting, asked of the process that it is for."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import requests

from helpers.clients import Site, children, live_web, main_pid
from helpers.operator import Operator
from helpers.repository import ROOT
from helpers.wait import wait_for

# What journald says of its limits whenever it opens a journal.
JOURNAL_USAGE = "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"


@pytest.fixture
def site(address):
    """Return the site under its new name and prefix."""
    return Site(address, "www.example.com", "/guests")


@pytest.fixture
def environ(host):
    """Return what the running web server has in its environment."""
    web = main_pid(host, live_web(host, "shop"))
    entries = host.check_output(f"tr '\\0' '\\n' < /proc/{web}/environ")
    return dict(entry.split("=", 1) for entry in entries.splitlines() if "=" in entry)


CONVERGE = str(ROOT / "molecule/reconfigure/converge.yml")


@pytest.fixture
def fresh(operator, tmp_path):
    """Return who has the inventory without its secrets, as a fresh clone has it."""
    there = Path(operator.inventory).parent
    shutil.copytree(there, tmp_path / "fresh", ignore=shutil.ignore_patterns("secrets"))
    return Operator(str(tmp_path / "fresh" / Path(operator.inventory).name))


def test_idempotence_with_strategy_linear(operator, monkeypatch):
    """What mitogen has converged, Ansible's own strategy finds converged."""
    monkeypatch.setenv("ANSIBLE_STRATEGY", "linear")
    done = operator.play(CONVERGE, "--skip-tags", "access")
    assert (done.code, done.changed) == (0, 0), done.output
    assert done.says("msg: http://www.example.com/guests/")


def test_an_old_copy_of_the_secrets_cannot_undo_a_change(operator):
    """The inventory has those of before converge.yml, which replaced them."""
    done = operator.play("deploy")
    assert done.code
    assert done.changed == 0
    assert done.says("app_cache_password, app_database_password, app_migration_password")
    assert done.says("a rotation has replaced this secret on shop-1")


def test_a_fresh_clone_is_refused_and_has_no_secrets_then(fresh):
    done = fresh.play("../site", "--check")
    assert done.code
    assert done.says("shop-1: set up with other secrets than")
    assert not [*Path(fresh.inventory).parent.glob("secrets/*")]


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


@pytest.mark.parametrize(("url", "mib"), [("CACHE_URL", 40), ("QUEUE_URL", 48)])
def test_redis_has_its_new_memory(host, url, mib):
    ask = f"print(redis.from_url(os.environ['{url}']).info('memory')['maxmemory'])"
    answer = host.check_output("flaskstack shop run python -c %s", "import os, redis; " + ask)
    assert int(answer) == mib * 2**20


def test_gunicorn_has_its_new_workers(host):
    assert len(children(host, main_pid(host, live_web(host, "shop")))) == 4


def test_the_environment_reached_the_process(environ):
    assert environ["GREETING"] == 'it\'s "quoted" $HOME \\ 100 %'
    assert environ["REQUEST_TIMEOUT"] == "20"
    assert (environ["DB_POOL_SIZE"], environ["DB_POOL_RECYCLE"]) == ("3", "200")
    assert environ["APP_PREFIX"] == "/guests"


@pytest.mark.parametrize(
    ("secret", "login"),
    [
        ("database", "import sqlalchemy as s; s.create_engine(url).connect()"),
        ("cache", "import redis; redis.from_url(url).ping()"),
        ("queue", "import redis; redis.from_url(url).ping()"),
    ],
)
def test_new_passwords_are_in_use_and_old_ones_refused(host, environ, secret, login):
    now = environ[f"{secret.upper()}_URL"]
    secrets = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventory", "secrets")
    old = (secrets / f"{secret}.txt").read_text().split()[0]
    before = re.sub(r"://shop:\w+@", f"://shop:{old}@", now)
    assert now != before
    assert host.run("flaskstack shop run python -c %s", f"url = {now!r}; {login}").succeeded
    refused = host.run("flaskstack shop run python -c %s", f"url = {before!r}; {login}")
    assert refused.failed
    assert re.search("access denied|wrongpass|invalid username-password", refused.stderr.lower())


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
    answer = site.write(site.get("/"), body="Under a prefix")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/guests/#note-")


def test_outside_the_prefix_is_nothing(address):
    answer = Site(address, "www.example.com").get("/whoami")
    assert answer.status_code == 404


def test_the_old_name_is_refused(address):
    with pytest.raises(requests.ConnectionError):
        Site(address, "shop.example.com", "/guests").get("/")


def test_the_new_upload_limit_holds(site):
    answer = site.post("/notes", data=b"x" * (3 * 2**19))
    assert answer.status_code == 413
    assert "The site takes up to 1 MiB" in answer.text, "the app's own limit answered"


def test_a_declared_load_balancer_is_believed(site):
    said = {"For": "198.51.100.7", "Proto": "https", "Port": "443"}
    said = {f"X-Forwarded-{name}": value for name, value in said.items()}
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
    newer = f"SELECT slot FROM shop.ticks WHERE slot > {last} ORDER BY slot"
    wait_for(lambda: len(sql.rows(newer)) >= 3, 40)
    slots = [int(row[0]) for row in sql.rows(newer)]
    assert slots[2] - slots[1] == 5


def test_the_host_has_its_new_settings(host):
    assert host.check_output("date +%Z") in ("CET", "CEST")
    entries = host.check_output(
        "journalctl --directory=/var/log/journal --output=json --lines=1 %s", JOURNAL_USAGE
    )
    assert int(json.loads(entries)["MAX_USE"]) == 123 * 2**20


def test_a_tag_is_for_one_role(host, operator):
    """The last test, since the host has other settings afterwards than converge.yml gives."""
    settings = {"nginx_proxy_read_timeout": 34, "gunicorn_threads": 2}
    config = "grep -Eho '(read_timeout 34|threads = 2)' /etc/nginx/sites-enabled/* %s || true"
    arrived = []
    for role in ("nginx", "gunicorn"):
        done = operator.play(CONVERGE, "--tags", role, **settings)
        assert done.code == 0, done.output
        assert done.changed
        assert not re.search(r"TASK .(mysql|redis|ssh|base|firewall) : (Conf|Create)", done.output)
        found = host.check_output(config, "/etc/shop/current/gunicorn.conf.py")
        arrived.append(sorted(set(found.splitlines())))
    assert arrived == [["read_timeout 34"], ["read_timeout 34", "threads = 2"]]
