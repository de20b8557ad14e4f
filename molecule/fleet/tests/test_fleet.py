"""A deploy on several hosts: built once, migrated once, switched in batches, rolled back."""

from __future__ import annotations

import json
import re

import pytest

from helpers.wait import wait_for

APPS = ("app-1", "app-2")
DUMPS = "/var/backups/sample"
# The import works on both hosts, but the app starts only on the first.
FACTORY, IMPORT = "sample_app/web/__init__.py", "from flask import Flask\n"
FAILS_ON_SECOND = f"""import os, socket
serves = "NOTIFY_SOCKET" in os.environ
assert not (serves and socket.gethostname().endswith("app-2")), "not on this host"
{IMPORT}"""
MIGRATION_FILE = "migrations/versions/9999_nothing.py"
MIGRATION = '''"""Change nothing."""

revision = "9999"
down_revision = "0002"


def upgrade():
    pass


def downgrade():
    pass
'''


# Records the release, and how many processes show the password of migrations in their arguments.
MIGRATE = """python -c "
import glob, os, sqlalchemy
password = sqlalchemy.make_url(os.environ['DATABASE_URL']).password.encode()
assert len(password) > 20
arguments = [open(name, 'rb').read() for name in glob.glob('/proc/[0-9]*/cmdline')]
assert any(b'--defaults-file=/dev/fd/' in line for line in arguments)
shown = sum(password in line for line in arguments)
print(os.environ['APP_RELEASE'], shown, file=open(os.environ['HOME'] + '/migrated', 'a'))
"
"""


def last(host):
    """Return the record of the last deploy on a host."""
    return json.loads(host.check_output("tail -n 1 /srv/sample/deploys.jsonl"))


@pytest.fixture
def lock(fleet):
    """Return the file of the deploy lock."""
    return fleet["app-1"].file("/srv/sample/deploy.json")


def test_ready_hosts_share_the_database(sites):
    for site in sites.values():
        assert site.get("/readyz").status_code == 200
    page = sites["app-1"].get("/")
    assert sites["app-1"].write(page, body="From the first host").status_code == 303
    wait_for(lambda: "From the first host" in sites["app-2"].get("/").text, 15)


# Certificates of database and Redis

DATABASE = """
import os, sqlalchemy
url = sqlalchemy.make_url(os.environ["DATABASE_URL"])
{change}
with sqlalchemy.create_engine(url).connect() as connection:
    print(connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1])
"""
REDIS = """
import os, redis
for name in ("CACHE_URL", "QUEUE_URL"):
    url = os.environ[name]
    {change}
    print(redis.from_url(url).ping())
"""
OTHER = "/etc/ssl/certs/ca-certificates.crt"


def app_python(host, code, change="pass"):
    return host.run("flaskstack sample run python -c %s", code.format(change=change))


@pytest.mark.parametrize("name", APPS)
def test_the_app_trusts_only_the_certificates_of_its_servers(fleet, name):
    host = fleet[name]
    assert "TLS" in app_python(host, DATABASE).stdout
    assert app_python(host, REDIS).stdout.split() == ["True", "True"]
    for code, change in (
        (DATABASE, f"url = url.update_query_dict(dict(ssl_ca='{OTHER}'))"),
        (REDIS, f"url = url.replace('/etc/sample/redis-ca.pem', '{OTHER}')"),
    ):
        assert "CERTIFICATE_VERIFY_FAILED" in app_python(host, code, change).stderr
    for server, ca in (("mysql/server-cert.pem", "database"), ("redis/sample.crt", "redis")):
        expected = fleet["data"].check_output(f"cat /etc/{server}")
        copy = host.file(f"/etc/sample/{ca}-ca.pem")
        assert (copy.content_string.strip(), copy.mode) == (expected, 0o644)


# Commands that run on one host


def test_first_install_commands_ran_once_on_one_host(fleet):
    (line,) = fleet["app-1"].check_output("cat /var/lib/sample/installed").splitlines()
    assert re.fullmatch(r"installed by \w{20,}", line)
    assert not fleet["app-2"].file("/var/lib/sample/installed").exists
    secret = line.split()[-1]
    for host in fleet.values():
        assert secret not in host.check_output("journalctl --boot --no-pager")


@pytest.fixture(scope="module")
def deployed(fleet, operator, version):
    """Deploy another version, one host at a time; return the result and the previous release."""
    before = fleet["app-1"].check_output("readlink /srv/sample/current").removeprefix("releases/")
    done = operator.deploy(
        version(),
        release_serial=1,
        release_dump_keep=2,
        app_migrate_commands=["alembic upgrade head", MIGRATE],
        app_post_deploy_commands=["echo $APP_RELEASE >>$HOME/followed"],
    )
    assert done.code == 0, done.output
    return done, before


def test_release_is_built_and_migrated_once_and_switched_in_batches(fleet, serving, deployed, lock):
    done, before = deployed
    (release,) = set(serving().values())
    assert release != before
    assert done.says(f"{release} replaced {before}")
    assert done.output.count("Build the release on the controller") == 1
    for file, line in (("migrated", f"{release} 0"), ("followed", release)):
        assert fleet["app-1"].check_output(f"grep -cx '{line}' /var/lib/sample/{file}") == "1"
        assert not fleet["app-2"].file(f"/var/lib/sample/{file}").exists
    first, second = (last(fleet[name]) for name in APPS)
    assert first["release"] == second["release"] == release
    assert first["time"] < second["time"], "both at once"
    assert "@" in first["by"]
    assert not lock.exists


def test_dump_before_the_migration_can_be_restored(fleet, deployed, operator, sites):
    """On another host than the app's, with the maintenance page on both app hosts meanwhile."""
    first, data = fleet["app-1"], fleet["data"]
    dumps = first.check_output(f"ls {DUMPS}").split()
    assert 1 <= len(dumps) <= 2
    newest = first.file(f"{DUMPS}/{dumps[-1]}")
    assert (newest.user, newest.mode) == ("root", 0o600)
    assert newest.path in deployed[0].output
    packed = first.check_output(f"base64 --wrap 0 {newest.path}")
    data.check_output(f"mkdir -p -m 700 {DUMPS}")
    data.check_output(f"echo {packed} | base64 --decode >{newest.path}")
    content = "mysql sample --batch --execute 'SHOW TABLES; SELECT COUNT(*) FROM notes'"
    before = data.check_output(content)
    data.check_output("mysql sample --execute 'CREATE TABLE later (id INT)'")
    done = operator.play("restore_dump", dump=dumps[-1], confirm=True)
    assert done.code == 0, done.output
    assert done.changed == 5  # the page on and off on two hosts, and the database
    assert data.check_output(content) == before
    previous = data.check_output(f"ls {DUMPS}/*-before-restore.sql.gz | tail -n 1")
    assert data.run(f"zgrep --quiet 'CREATE TABLE .later' {previous}").succeeded
    assert not any(
        fleet[name].file("/var/lib/flaskstack/maintenance/sample").exists for name in APPS
    )
    for site in sites.values():  # its pool connects again
        wait_for(lambda site=site: site.get("/readyz").status_code == 200, 15)


def test_failed_post_deploy_command_is_reported_and_the_release_stays_active(
    fleet, serving, operator, version, deployed, lock
):
    """First install commands do not run again, even if their marker is gone."""
    before, source = serving(), version()
    fleet["app-1"].check_output("rm -f /srv/sample/first_install.json")
    commands = {
        "app_first_install_commands": ["touch $HOME/wiped"],
        "app_post_deploy_commands": ["echo purged nothing; exit 4"],
    }
    done = operator.deploy(source, **commands)
    assert done.code != 0
    assert done.says("were not run, and will not be: a release was active before")
    assert not fleet["app-1"].file("/var/lib/sample/wiped").exists
    (release,) = set(serving().values())
    assert release not in before.values()
    assert done.says(f"{release} is active, but app_post_deploy_commands failed")
    assert done.says("purged nothing")
    assert not lock.exists
    again = operator.deploy(source, **commands)
    assert (again.code, again.changed) == (0, 0), again.output
    assert again.says(f"No change: {release} is already active")


# Failures


def test_failed_migration_changes_nothing_and_shows_no_secret(
    fleet, serving, operator, version, lock
):
    before = serving()
    done = operator.deploy(
        version(), app_migrate_commands=["echo no table at $DATABASE_URL; exit 3"]
    )
    assert done.code != 0
    assert done.says("app_migrate_commands failed with code 3")
    assert re.search(r"no table at mysql\+pymysql://sample_migrate:\*+@", done.output)
    assert done.says(f"{before['app-1']} is active on app-1, app-2")
    assert serving() == before
    assert not lock.exists


def test_second_deploy_fails_and_names_the_holder_of_the_lock(
    fleet, serving, operator, version, lock
):
    first, before = fleet["app-1"], serving()
    first.check_output("rm -f /var/lib/sample/go")
    one = {
        "app_source_folder": str(version()),
        "app_migrate_commands": ["until test -e $HOME/go; do sleep 0.2; done"],
    }
    with operator.playing("deploy", **one) as end:
        wait_for(lambda: first.run("pgrep --full 'until [t]est -e'").succeeded, 60)
        holder = json.loads(lock.content_string)
        second = operator.deploy(version())
        assert second.code != 0
        assert second.says(f"{holder['by']} has been deploying {holder['release']} since")
        # The killed controller's migration continues on the host and still blocks other deploys.
        end()
    try:
        third = operator.deploy(version())
    finally:
        first.check_output("touch /var/lib/sample/go")
    assert third.code != 0
    assert third.says(f"changing sample on this host: {holder['by']} has been migrating to")
    wait_for(lambda: first.run("pgrep --full 'until [t]est -e'").failed, 10)
    assert serving() == before


def test_deploy_lock_can_be_broken_and_the_lock_in_the_database_cannot(
    fleet, serving, operator, version, lock
):
    first, before, source = fleet["app-1"], serving(), version()
    elsewhere = {"by": "bob@ci", "controller": "ci", "pid": 7, "release": "x"}
    elsewhere["time"] = int(first.check_output("date +%s"))
    first.check_output(f"echo '{json.dumps(elsewhere)}' >/srv/sample/deploy.json")
    assert operator.deploy(source).says("bob@ci has been deploying x since")
    holds = "SELECT GET_LOCK('flaskstack_sample', 0), SLEEP(300)"
    fleet["data"].check_output(f'systemd-run --unit holder mysql --execute "{holds}"')
    try:
        done = operator.deploy(source, release_lock="break")
        assert done.code != 0
        assert done.says("hold the lock flaskstack_sample")
        assert serving() == before
    finally:
        fleet["data"].check_output("systemctl stop holder")
    assert not lock.exists


# Rollback


def test_failed_batch_stops_the_rollout_and_rollback_restores_the_previous_release(
    fleet, sites, serving, operator, version, lock
):
    before = serving()["app-1"]
    source = version(FACTORY, IMPORT, FAILS_ON_SECOND)
    (source / MIGRATION_FILE).write_text(MIGRATION)
    done = operator.deploy(source, release_serial=1, app_migrate_commands=[])
    assert done.code != 0
    release = serving()["app-1"]
    assert release != before
    assert serving()["app-2"] == before
    assert done.says(f"{release} is active on app-1; {before} is active on app-2")
    assert done.says("not on this host")
    assert not lock.exists
    check = operator.play("rollback", "--check")
    assert check.code == 0, check.output
    assert check.says(MIGRATION_FILE)
    assert serving() == {"app-1": release, "app-2": before}
    back = operator.play("rollback", app_migrate_commands=["false"])
    assert back.code == 0, back.output
    assert back.says(MIGRATION_FILE)
    assert set(serving().values()) == {before}
    assert all(site.get("/readyz").status_code == 200 for site in sites.values())
    assert not lock.exists


def active_rows(table):
    """Return the row of each host's active release. Only its first row has the name of the host."""
    rows, host = {}, ""
    for line in table.splitlines():
        host = next((name for name in APPS if line.split()[:1] == [name]), host)
        if re.search(r" in slot [ab] ", line):
            rows[host] = line
    return rows


def test_releases_lists_the_active_release_of_each_host(fleet, serving, operator):
    done = operator.play("releases")
    assert (done.code, done.changed) == (0, 0)
    rows = active_rows(done.output)
    for name, release in serving().items():
        record = last(fleet[name])
        assert {release, record["time"], record["by"]} <= set(re.split("  +", rows[name].strip()))


def test_singleton_runs_on_one_host(fleet):
    assert fleet["app-1"].service("sample-scheduler@1.service").is_running
    assert fleet["app-2"].run("systemctl is-active sample-scheduler@1.service").failed
    for name in APPS:
        assert fleet[name].service("sample-worker@1.service").is_running


def test_singleton_moves_and_never_runs_on_two_hosts(fleet, operator):
    unit = "sample-scheduler@1.service"

    def since(name, event):
        """Return the time of the unit's last event in microseconds; the hosts share one clock."""
        command = f"systemctl show --value --property={event}TimestampMonotonic {unit}"
        return int(fleet[name].check_output(command))

    refused = operator.play("site.yml", "--limit=app-2", app_singleton_host="app-2")
    assert refused.code != 0
    assert refused.says("Nothing was moved")
    assert fleet["app-1"].service(unit).is_running
    moved = operator.play("site.yml", "--tags=gunicorn", app_singleton_host="app-2")
    assert moved.code == 0, moved.output
    assert not fleet["app-1"].service(unit).is_running
    assert fleet["app-2"].service(unit).is_running
    assert since("app-1", "InactiveEnter") < since("app-2", "ActiveEnter")
    fleet["app-1"].check_output("systemctl restart sample.target")
    assert not fleet["app-1"].service(unit).is_running
