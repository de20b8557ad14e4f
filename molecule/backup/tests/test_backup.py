"""Backups by SFTP: any second can be restored, beside, in place and on a bare host.

The order of the tests matters: later ones restore what earlier ones wrote.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flaskstack import host_status
from helpers.wait import wait_for

METRICS = "/var/lib/flaskstack/metrics/my_shop_backup.prom"
SETTINGS = "/etc/flaskstack/backup/my_shop/settings.json"
PROGRAM = "python3 -I -B /usr/local/lib/flaskstack/my_shop-backup"
STATE = "/var/lib/flaskstack/backup/my_shop"
SECRETS = ("app", "backup", "migration", "queue")
REDIS = "redis-cli -s /run/redis-my_shop-queue/redis.sock --user my_shop"
# A session that writes all the time; the gaps between its rows are the time that writes waited.
PROBE = "INSERT INTO probes (at) VALUES (SYSDATE(6)); DO SLEEP(0.01);"
GAP = (
    "SELECT MAX(gap) FROM (SELECT TIMESTAMPDIFF(MICROSECOND, LAG(at) OVER (ORDER BY id), at) / 1e6"
)
GAP += " AS gap FROM probes) AS gaps"


@pytest.fixture(scope="module")
def proof():
    """Return what later tests need: the writer and the moment of the restore."""
    return {}


@pytest.fixture(scope="module")
def secrets():
    """Return the secrets of the inventory by their names."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return {name: (folder / name).read_text().strip() for name in SECRETS}


@pytest.fixture(scope="module", autouse=True)
def command_lines(hosts):
    """Record the command lines of all processes of the site; return the path of the record."""
    site, path = hosts["site"], "/run/command_lines"
    loop = f"while sleep 0.1; do cat /proc/[0-9]*/cmdline >>{path} 2>&-; done"
    loop = f"umask 077; rm -f {path}; {loop}"
    site.check_output(f"systemd-run --unit=command-lines sh -c {shlex.quote(loop)}")
    yield path
    site.run("systemctl stop command-lines")


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def metric(host, name, job):
    line = host.check_output(f"grep '^flaskstack_backup_{name}{{.*job=\"{job}\"' {METRICS}")
    return float(line.split()[-1])


def position(host):
    """Return the end of the binary logs."""
    return ":".join(host.check_output("mariadb -Ne 'SHOW BINARY LOGS' | tail -n 1").split())


def shipped(host):
    return json.loads(host.check_output(f"cat {STATE}/binlog.json"))["shipped"]


def test_a_dropped_table_is_restored_to_the_second_before(
    hosts, operator, manual, writer, rows, proof
):
    site = hosts["site"]
    table = "CREATE TABLE probes (id INT PRIMARY KEY AUTO_INCREMENT, at DATETIME(6))"
    site.check_output(f"mariadb my_shop -e '{table}'")
    probe = f"yes {shlex.quote(PROBE)} | mariadb my_shop"
    site.check_output(f"systemd-run --unit=probe sh -c {shlex.quote(probe)}")
    with writer.running():
        wait_for(lambda: len(writer.acknowledged) > 20, 30)
        done = operator.play("backup", "--limit", "site")
        assert done.code == 0, done.output
        wait_for(lambda: len(writer.acknowledged) > 100, 60)
        site.check_output("systemctl stop probe")
        proof |= {"writer": writer, "moment": int(time.time()) + 1}
        wait_for(lambda: writer.after(proof["moment"]), 30)
        site.check_output("mariadb my_shop -e 'DROP TABLE writes'")
    gap = float(site.check_output(f"mariadb my_shop -Ne '{GAP}'"))
    print(f"longest wait of a write during a backup: {gap:.2f} s")
    assert gap < 1
    beside, copy, drop, in_place = manual.commands("A table was dropped, or rows were deleted")
    for command in (beside, copy, drop):
        manual.run(command, moment=moment(proof["moment"]))
    restored = rows()
    assert not writer.before(proof["moment"]) - restored
    assert not writer.after(proof["moment"]) & restored
    proof |= {"rows": restored, "in_place": in_place}


def test_a_restore_in_place_needs_a_confirmation(operator, manual, rows, proof):
    to = moment(proof["moment"])
    done = operator.play("restore", "--limit", "site", restore_to=to)
    assert done.code != 0
    assert done.says(
        "It overwrites database my_shop with 4 tables and views. To confirm, add -e confirm=yes"
    )
    *_, command = manual.commands("A migration went wrong")
    assert command == proof["in_place"]
    manual.run(command, moment=to)
    assert rows() == proof["rows"]


def test_a_bare_host_restores_the_same(operator, rows, proof):
    to = moment(proof["moment"])
    done = operator.play("restore", "--limit", "bare", restore_to=to, confirm="yes")
    assert done.code == 0, done.output
    assert rows("bare") == proof["rows"]


def test_a_drill_reports_age_and_duration(hosts, operator):
    done = operator.play("restore_drill", "--limit", "site")
    assert done.code == 0, done.output
    assert done.says("1 checks of the app passed")
    assert metric(hosts["site"], "failed", "drill") == 0
    assert hosts["site"].run(f"ls -d {STATE}/restore*").stdout == ""


def test_commits_are_in_the_store_within_the_limit(hosts):
    site = hosts["site"]
    site.check_output("mariadb my_shop -e 'CREATE TABLE IF NOT EXISTS shipped (id INT)'")
    end = position(site)
    wait_for(lambda: shipped(site) == end, 15)  # backup_binlog_interval is 10; busy machines


def test_a_failed_or_missing_backup_is_a_failed_unit_with_a_metric_and_a_reason(
    hosts, monkeypatch, tmp_path
):
    site, store = hosts["site"], hosts["store"]
    monkeypatch.setattr(host_status, "METRICS", tmp_path)

    def reported():
        (tmp_path / "backup.prom").write_text(site.check_output(f"cat {METRICS}"))
        found = host_status.backups(host_status.read_metrics(), time.time())
        return [
            line for line in host_status.host_problems({"backups": found}) if "job check" in line
        ]

    def fails(reason):
        assert site.run("systemctl start my_shop-backup@check").rc != 0
        assert site.run("systemctl is-failed my_shop-backup@check").rc == 0
        journal = site.check_output("journalctl -u my_shop-backup@check -n 20 -p err -o cat")
        assert reason in journal
        assert metric(site, "failed", "check") == 1
        (line,) = reported()
        assert line.endswith("failed")

    store.check_output("chmod 0 /srv/backups")
    try:
        fails("Backup job check of my_shop failed. restic: ")
    finally:
        store.check_output("chmod 700 /srv/backups")
    site.check_output(f'sed -i \'s/"max_age": 26/"max_age": 0/\' {SETTINGS}')
    try:
        fails("The newest backup is 0 hours old")
    finally:
        site.check_output(f'sed -i \'s/"max_age": 0/"max_age": 26/\' {SETTINGS}')
    site.check_output("systemctl start my_shop-backup@check")
    assert reported() == []


def test_files_are_restored_as_the_user_of_the_app(hosts, operator):
    """A link that the app put in place of its directory leads nowhere."""
    site, uploads = hosts["site"], "/srv/my_shop/shared/uploads"
    site.run("useradd --system my_shop")
    site.check_output(f"echo saved >{uploads}/note && chown -R my_shop: /srv/my_shop/shared")
    site.check_output("systemctl start my_shop-backup@run")
    site.check_output(f"echo changed >{uploads}/note && touch {uploads}/later")
    variables = {"restore_parts": "files", "confirm": "yes"}
    done = operator.play("restore", "--limit", "site", **variables)
    assert done.code == 0, done.output
    found = site.check_output(f"cat {uploads}/note; ls {uploads}")
    assert found.split() == ["saved", "later", "note"]
    site.check_output(f"rm -r {uploads} && ln -s /etc/cron.d {uploads}")
    site.run(f"{PROGRAM} {SETTINGS} restore --parts files --apply")
    assert site.run("test -e /etc/cron.d/note").rc != 0
    site.check_output(f"rm -r {uploads} && mkdir {uploads} && chown my_shop: {uploads}")


def test_a_new_server_restores_before_it_backs_up(hosts, manual, operator, secrets, rows, proof):
    """Its empty database and queue never become the newest backup."""
    site = hosts["site"]
    password = b64encode(secrets["queue"].encode()).decode()  # not itself in a command line
    redis = f"REDISCLI_AUTH=$(echo {password} | base64 -d) {REDIS}"
    site.check_output(f"{redis} del jobs && {redis} rpush jobs one two")
    site.check_output("systemctl start my_shop-backup@run")
    site.check_output("systemctl stop 'my_shop-backup@*'")
    site.check_output(f"{redis} del jobs")
    site.check_output("mariadb -e 'DROP DATABASE my_shop; CREATE DATABASE my_shop; RESET MASTER'")
    site.check_output(f"rm -rf {STATE} {METRICS}")
    create, restore = manual.commands("A server is gone")
    manual.run(create)
    assert site.run("systemctl start my_shop-backup@run").rc != 0
    journal = site.check_output("journalctl -u my_shop-backup@run -n 20 -p err -o cat")
    assert "The store has backups of site from before this server. Restore them" in journal
    manual.run(restore)
    assert rows() == proof["rows"]
    wait_for(lambda: site.check_output(f"{redis} lrange jobs 0 -1").split() == ["one", "two"])
    done = operator.play("backups", "--limit", "site")
    assert done.code == 0, done.output
    assert done.says("database, queue, files")
    assert metric(site, "failed", "run") == 0


def test_the_password_of_the_backups_is_on_the_server(manual, secrets):
    (command,) = manual.commands("The secrets are lost")
    assert manual.run(command) == secrets["backup"]


def test_no_secret_is_in_a_process_list_a_log_or_a_public_file(hosts, command_lines, secrets):
    site = hosts["site"]
    patterns = " ".join(f"-e {secret}" for secret in secrets.values())
    assert "restic" in site.check_output(
        f"tr '\\0' ' ' <{command_lines} | grep -m 1 'backup --json'"
    )
    # The patterns are in the command line of the search, so the record ends before it.
    site.check_output("systemctl stop command-lines")
    assert site.run(f"grep -aF {patterns} {command_lines}").rc == 1
    journal = "journalctl -u 'my_shop*' -u mariadb -u 'redis*' -o cat"
    assert site.run(f"{journal} | grep -F {patterns}").rc == 1
    folders = "/etc /run /srv /tmp /usr/local /var/lib /var/log"
    found = site.run(f"runuser -u nobody -- grep -rlsF {patterns} {folders}")
    assert found.stdout == ""
