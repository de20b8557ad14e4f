"""Every changed setting is applied by its service."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import requests

from helpers.clients import Site, children, live_web, main_pid
from helpers.repository import ROOT
from helpers.wait import wait_for

# ID of the message with which journald reports its limits whenever it opens a journal.
JOURNAL_USAGE = "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"


@pytest.fixture
def site(address):
    """Return the site with its new domain and prefix."""
    return Site(address, "www.example.com", "/guests")


@pytest.fixture
def environ(host):
    """Return the environment of the running web server."""
    web = main_pid(host, live_web(host, "shop"))
    entries = host.check_output(f"tr '\\0' '\\n' < /proc/{web}/environ")
    return dict(entry.split("=", 1) for entry in entries.splitlines() if "=" in entry)


CONVERGE = str(ROOT / "molecule/reconfigure/converge.yml")


def test_idempotence_with_strategy_linear(operator, monkeypatch):
    """The linear strategy changes no host that mitogen converged."""
    monkeypatch.setenv("ANSIBLE_STRATEGY", "linear")
    done = operator.play(CONVERGE, "--skip-tags", "access")
    assert (done.code, done.changed) == (0, 0), done.output
    assert done.says("msg: http://www.example.com/guests/")


def test_previous_secrets_are_rejected(operator):
    """The inventory has the previous secrets, which converge.yml replaced."""
    done = operator.play("deploy")
    assert done.code
    assert done.changed == 0
    assert done.says("app_cache_password, app_database_password, app_migration_password")
    assert done.says("a rotation has replaced this secret on shop-1")


def test_mysql_has_the_new_values(sql):
    expected = {
        "wait_timeout": "300",
        "max_connections": "77",
        "innodb_buffer_pool_size": str(160 * 2**20),
        "innodb_lock_wait_timeout": "10",
        "net_read_timeout": "20",
        "long_query_time": "3.000000",
    }
    assert {name: sql.variable(name) for name in expected} == expected


def test_redis_has_the_new_memory_limits(host):
    code = (
        "import os, redis; print(*(redis.from_url(os.environ[url]).info('memory')['maxmemory']"
        " for url in ('CACHE_URL', 'QUEUE_URL')))"
    )
    answer = host.check_output("flaskstack shop run python -c %s", code)
    assert answer.split() == [str(40 * 2**20), str(48 * 2**20)]


def test_gunicorn_has_the_new_number_of_workers(host):
    assert len(children(host, main_pid(host, live_web(host, "shop")))) == 4


def test_web_process_has_the_new_environment(environ):
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
def test_only_the_new_passwords_are_accepted(host, environ, secret, login):
    new = environ[f"{secret.upper()}_URL"]
    secrets = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventory", "secrets")
    previous = (secrets / f"{secret}.txt").read_text().split()[0]
    old = re.sub(r"://shop:\w+@", f"://shop:{previous}@", new)
    assert new != old
    assert host.run("flaskstack shop run python -c %s", f"url = {new!r}; {login}").succeeded
    rejected = host.run("flaskstack shop run python -c %s", f"url = {old!r}; {login}")
    assert rejected.failed
    assert re.search("access denied|wrongpass|invalid username-password", rejected.stderr.lower())


def test_links_work_under_the_prefix(site):
    page = site.get("/")
    assert page.status_code == 200
    links = set(re.findall(r'(?:href|src|action)="([^"#]+)', page.text))
    assert len(links) > 4
    for link in links:
        assert link.startswith("/guests/"), link
        answer = site.get(link.removeprefix("/guests"))
        assert answer.status_code in (200, 405), link  # 405: the target of the form
    assert site.get("/whoami").json()["prefix"] == "/guests"


def test_note_can_be_created_under_the_prefix(site):
    answer = site.write(site.get("/"), body="Under a prefix")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/guests/#note-")


def test_url_outside_the_prefix_is_404(address):
    answer = Site(address, "www.example.com").get("/whoami")
    assert answer.status_code == 404


def test_previous_domain_is_rejected(address):
    with pytest.raises(requests.ConnectionError):
        Site(address, "shop.example.com", "/guests").get("/")


def test_new_upload_limit_is_enforced(site):
    answer = site.post("/notes", data=b"x" * (3 * 2**19))
    assert answer.status_code == 413
    assert "The site takes up to 1 MiB" in answer.text, "the app's own limit answered"


def test_trusted_load_balancer_sets_the_client_address(site):
    forwarded = {"For": "198.51.100.7", "Proto": "https", "Port": "443"}
    headers = {f"X-Forwarded-{name}": value for name, value in forwarded.items()}
    seen = site.get("/whoami", headers=headers).json()
    assert (seen["remote_addr"], seen["scheme"]) == ("198.51.100.7", "https")
    assert seen["url"] == "https://www.example.com/guests/"


def test_processes_are_added_and_renamed(host):
    running = host.check_output("systemctl list-units --state running --plain --no-legend 'shop-*'")
    names = {line.split()[0] for line in running.splitlines()}
    assert {"shop-worker@1.service", "shop-worker@2.service", "shop-clock@1.service"} <= names
    assert "shop-scheduler@1.service" not in names


def test_renamed_scheduler_has_the_new_interval(sql):
    last = int(sql.value("SELECT MAX(slot) FROM shop.ticks"))
    newer = f"SELECT slot FROM shop.ticks WHERE slot > {last} ORDER BY slot"
    wait_for(lambda: len(sql.rows(newer)) >= 3, 40)
    slots = [int(row[0]) for row in sql.rows(newer)]
    assert slots[2] - slots[1] == 5


def test_host_has_the_new_settings(host):
    assert host.check_output("date +%Z") in ("CET", "CEST")
    entries = host.check_output(
        "journalctl --directory=/var/log/journal --output=json --lines=1 %s", JOURNAL_USAGE
    )
    assert int(json.loads(entries)["MAX_USE"]) == 123 * 2**20


def test_tag_runs_one_role(host, operator):
    """The last test, since it leaves the host with other settings than converge.yml."""
    settings = {"nginx_proxy_read_timeout": 34, "gunicorn_threads": 2}
    done = operator.play(CONVERGE, "--tags", "gunicorn", **settings)
    assert done.code == 0, done.output
    assert not re.search(
        r"TASK .(mysql|nginx|redis|ssh|base|firewall) : (Conf|Create)", done.output
    )
    files = ("/etc/nginx/sites-enabled/*", "/etc/shop/current/gunicorn.conf.py")
    found = host.check_output(f"grep -Eho '(read_timeout 3.|threads = .)' {' '.join(files)}")
    assert set(found.splitlines()) == {"read_timeout 33", "threads = 2"}
