"""Backups by SFTP: any second can be restored, beside, in place and on a bare host.

The order of the tests matters: later ones restore what earlier ones wrote.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from helpers.wait import wait_for

METRICS = "/var/lib/flaskstack/metrics/my_shop_backup.prom"
REDIS = "redis-cli -s /run/redis-my_shop-queue/redis.sock --user my_shop"


@pytest.fixture(scope="module")
def proof():
    """Return what later tests need: the writer and the moment of the restore."""
    return {}


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def metric(host, name, job):
    line = host.check_output(f"grep '^flaskstack_backup_{name}{{.*job=\"{job}\"' {METRICS}")
    return float(line.split()[-1])


def test_a_dropped_table_is_restored_to_the_second_before(hosts, operator, writer, rows, proof):
    site = hosts["site"]
    with writer.running():
        wait_for(lambda: len(writer.acknowledged) > 20)
        assert operator.play("backup", "--limit", "site").code == 0
        wait_for(lambda: len(writer.acknowledged) > 100, 60)
        proof |= {"writer": writer, "moment": int(time.time()) + 1}
        time.sleep(2.5)
        site.check_output("mariadb my_shop -e 'DROP TABLE writes'")
    to = moment(proof["moment"])
    done = operator.play("restore", "--limit", "site", restore_to=to, restore_as="copy")
    assert done.code == 0, done.output
    assert not writer.before(proof["moment"]) - rows(database="copy")
    assert writer.after(proof["moment"])
    assert not writer.after(proof["moment"]) & rows(database="copy")


def test_a_restore_in_place_needs_a_confirmation(hosts, operator, rows, proof):
    to = moment(proof["moment"])
    done = operator.play("restore", "--limit", "site", restore_to=to)
    assert done.code != 0
    assert done.says("It overwrites database my_shop with 0 tables. To confirm, add -e confirm=yes")
    done = operator.play("restore", "--limit", "site", restore_to=to, confirm="yes")
    assert done.code == 0, done.output
    assert rows() == rows(database="copy")


def test_a_bare_host_restores_the_same(operator, rows, proof):
    to = moment(proof["moment"])
    done = operator.play("restore", "--limit", "bare", restore_to=to, confirm="yes")
    assert done.code == 0, done.output
    assert rows("bare") == rows(database="copy")


def test_a_drill_reports_age_and_duration(hosts, operator):
    done = operator.play("restore_drill", "--limit", "site")
    assert done.code == 0, done.output
    assert done.says("1 checks of the app passed")
    assert metric(hosts["site"], "failed", "drill") == 0
    assert hosts["site"].check_output("ls /var/lib/flaskstack/backup/my_shop/restore*") == ""


def test_commits_are_in_the_store_within_the_limit(hosts):
    site = hosts["site"]
    site.check_output("mariadb my_shop -e 'CREATE TABLE IF NOT EXISTS shipped (id INT)'")
    start = time.time()
    wait_for(lambda: metric(site, "last_success_timestamp_seconds", "ship") > start, 15)


def test_a_failed_job_is_a_failed_unit_with_a_metric_and_a_reason(hosts):
    site, store = hosts["site"], hosts["store"]
    store.check_output("chmod 0 /srv/backups")
    try:
        assert site.run("systemctl start my_shop-backup@check").rc != 0
        assert site.service("my_shop-backup@check").is_running is False
        assert metric(site, "failed", "check") == 1
    finally:
        store.check_output("chmod 700 /srv/backups")
    site.check_output("systemctl start my_shop-backup@check")
    assert metric(site, "failed", "check") == 0


def test_no_secret_is_in_a_process_list_or_a_public_file(hosts):
    site = hosts["site"]
    path = "/etc/flaskstack/backup/my_shop/settings.json"
    assert site.file(path).mode == 0o600
    assert "password" not in site.check_output(f"cat {METRICS}").lower()


def test_files_are_restored_as_the_user_of_the_app(hosts, operator):
    """A link that the app put in place of its directory leads nowhere."""
    site, uploads = hosts["site"], "/srv/my_shop/shared/uploads"
    site.run("useradd --system my_shop")
    site.check_output(f"echo saved >{uploads}/note && chown -R my_shop: /srv/my_shop/shared")
    assert operator.play("backup", "--limit", "site").code == 0
    site.check_output(f"echo changed >{uploads}/note && touch {uploads}/later")
    variables = {"restore_parts": "files", "confirm": "yes"}
    done = operator.play("restore", "--limit", "site", **variables)
    assert done.code == 0, done.output
    assert site.check_output(f"cat {uploads}/note; ls {uploads}").split() == [
        *("saved", "later", "note")
    ]
    site.check_output(f"rm -r {uploads} && ln -s /etc/cron.d {uploads}")
    operator.play("restore", "--limit", "site", **variables)
    assert site.run("test -e /etc/cron.d/note").rc != 0


def test_the_queue_gets_its_jobs_back(hosts, operator):
    site = hosts["site"]
    password = site.ansible.get_variables()["app_queue_password"]
    redis = f"REDISCLI_AUTH={password} {REDIS}"
    site.check_output(f"{redis} rpush jobs one two")
    assert operator.play("backup", "--limit", "site").code == 0
    site.check_output(f"{redis} del jobs")
    done = operator.play("restore", "--limit", "site", restore_parts="queue", confirm="yes")
    assert done.code == 0, done.output
    wait_for(lambda: site.check_output(f"{redis} lrange jobs 0 -1").split() == ["one", "two"])


def test_backups_are_listed(operator):
    done = operator.play("backups", "--limit", "site")
    assert done.code == 0, done.output
    assert done.says("database, queue, files")
