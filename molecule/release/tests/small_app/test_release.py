"""A release becomes active completely, or not at all.

test_failure covers the other failures and interrupted deploys.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from helpers.wait import wait_for

NEW = re.compile(r"(\S+) would replace")
COMPLETE = "stat -Lc '%i %z' /srv/fixture/current/.venv/.complete"
OFTEN = {"threads": 2, "most": 100_000, "pause": 0.02}  # seconds between requests


def test_the_release_answers_and_knows_its_name(site, current):
    assert site.get("/").text == current()


@pytest.fixture(scope="module")
def deployed(site, host, current, history, operator, version):
    """Deploy another version under load and during one slow request; return what clients saw."""
    before, source, noted = current(), version(), len(history())
    environment = host.check_output(COMPLETE)
    host.check_output("rm -f /var/lib/fixture/go")
    with (
        ThreadPoolExecutor(1) as visitor,
        site.under_load("/", **OFTEN) as answers,
    ):
        slow = visitor.submit(site.get, "/slow", timeout=300)
        wait_for(lambda: site.get("/waiting").text != "0")
        done = operator.deploy(source)
        during = answers.total()
        wait_for(lambda: answers.total() > during + 20)
        slow_waits = not slow.done()
        host.check_output("touch /var/lib/fixture/go")
        slow = slow.result()
    return SimpleNamespace(**locals(), release=current())


def test_another_version_serves_from_the_same_environment(site, host, deployed):
    assert deployed.done.code == 0, deployed.done.output
    assert site.get("/").text == deployed.release != deployed.before
    assert f"{deployed.release} replaced {deployed.before}" in deployed.done.output
    assert host.check_output(COMPLETE) == deployed.environment


def test_no_request_is_refused_during_a_deploy(deployed):
    assert deployed.during > 20
    assert set(deployed.answers) == {"200"}


def test_a_slow_request_is_finished_by_its_release(deployed):
    assert deployed.slow_waits
    assert deployed.slow.text == deployed.before


def test_each_deploy_is_recorded(history, deployed):
    (last,) = history()[deployed.noted :]
    assert (last["release"], last["previous"]) == (deployed.release, deployed.before)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", last["time"])
    assert "@" in last["by"]


def test_deploying_the_same_version_again_changes_nothing(current, operator, deployed):
    again = operator.deploy(deployed.source)
    assert (again.code, again.changed) == (0, 0)
    assert f"No change: {current()} is already active" in again.output


def test_a_stopped_unit_is_started(site, host, current, operator, deployed):
    host.check_output("systemctl stop fixture-clock@1.service")
    done = operator.deploy(deployed.source)
    assert done.code == 0, done.output
    assert host.service("fixture-clock@1.service").is_running
    assert site.get("/").text == current() == deployed.release


def test_an_import_may_take_longer_than_a_request(site, current, operator, version):
    slow = version("web.py", "WELL = True", "import time\ntime.sleep(8)\nWELL = True")
    done = operator.deploy(slow, release_health_timeout=40)
    assert done.code == 0, done.output
    assert site.get("/").text == current()


def test_an_unhealthy_release_gets_no_requests(site, state, operator, version):
    before = state()
    unwell = version("web.py", "WELL = True", "WELL = False\nprint('no good today', flush=True)")
    with site.under_load("/", **OFTEN) as answers:
        done = operator.deploy(unwell, release_health_timeout=5, release_health_status=204)
    assert done.code != 0
    assert 'failed at "Start the release": fixture-web@' in done.output
    assert done.says("503 Service Unavailable")
    assert done.says("(expected is 204)")
    assert "no good today" in done.output
    assert " is active on site" in done.output
    assert set(answers) == {"200"}
    assert state() == before


def test_a_release_with_a_different_health_answer_is_unhealthy(state, operator, version):
    before = state()
    done = operator.deploy(version(), release_health_timeout=5, release_health_body="^up$")
    assert done.says("(expected is a body with ^up$)")
    assert state() == before


def test_a_release_restarts_in_its_slot_where_memory_allows_only_one(
    site, host, current, operator, version
):
    before, door = current(), host.check_output("readlink /srv/fixture/web.sock")
    with site.under_load("/", **OFTEN) as answers:
        done = operator.deploy(version(), release_strategy="restart")
    assert done.code == 0, done.output
    assert set(answers) == {"200"}
    assert site.get("/").text == current() != before
    assert host.check_output("readlink /srv/fixture/web.sock") == door


@pytest.mark.parametrize("file", ["web.py", "clock.py"])
def test_a_release_that_fails_in_its_slot_restores_the_previous_one(
    site, state, operator, version, file
):
    before = state()
    first = {"web.py": "import os", "clock.py": "import time"}[file]
    with site.under_load("/", **OFTEN) as answers:
        done = operator.deploy(
            version(file, first, f"{first}, not_there"), release_strategy="restart", release_watch=3
        )
    assert done.code != 0
    assert "No module named 'not_there'" in done.output
    assert set(answers) == {"200"}
    assert state() == before


def test_a_dependency_with_a_wrong_hash_is_not_installed(site, host, current, operator, version):
    before, environments = current(), host.check_output("ls -A /srv/fixture/environments")
    source = version("requirements.lock", "sha256:", "sha256:0000")
    lock = source / "requirements.lock"
    lock.write_text(
        re.sub(r"sha256:(\w{64})\w*", r"sha256:\1", lock.read_text()).replace(
            "sha256:b", "sha256:c"
        )
    )
    done = operator.deploy(source)
    assert done.code != 0
    assert "Hash mismatch for" in done.output
    assert site.get("/").text == current() == before
    assert host.check_output("ls -A /srv/fixture/environments") == environments


def test_check_mode_changes_nothing_and_an_interrupted_build_is_repeated(
    site, host, current, operator, version
):
    source = version("requirements.lock", "gunicorn", "# another lock\ngunicorn")
    before, releases = current(), host.file("/srv/fixture/releases").listdir()
    look = operator.deploy(source, "--check")
    assert (look.code, look.changed) == (0, 2)  # a deploy would build and activate it
    assert f"would replace {before}" in look.output
    assert host.file("/srv/fixture/releases").listdir() == releases
    release = NEW.search(look.output).group(1)
    for half in (release, f".{release}"):
        host.check_output(
            f"mkdir /srv/fixture/releases/{half} && touch /srv/fixture/releases/{half}/half"
        )
    done = operator.deploy(source)
    assert done.code == 0, done.output
    assert site.get("/").text == current() == release
    assert not host.run("ls -d /srv/fixture/releases/*/half /srv/fixture/releases/.??*").stdout
    # The same applies to its environment.
    host.check_output(
        "cd /srv/fixture/current/.venv && rm -r .complete lib/python3*/site-packages/gunicorn"
    )
    done = operator.deploy(source)
    assert done.code == 0, done.output
    host.check_output("/srv/fixture/current/.venv/bin/gunicorn --version")
    assert site.get("/").text == current()


def test_a_source_without_a_lock_is_rejected(current, operator, version):
    before, source = current(), version()
    (source / "requirements.lock").unlink()
    done = operator.deploy(source)
    assert done.code != 0
    assert "app_requirements is requirements.lock: must be files in" in done.output
    assert current() == before


# Records the database URL, and whether the arguments of another process show it.
MIGRATE = """python -c "
import glob, os, pwd
url = os.environ['DATABASE_URL']
shown = sum(url.encode() in open(name, 'rb').read() for name in glob.glob('/proc/[0-9]*/cmdline'))
user = pwd.getpwuid(os.getuid()).pw_name
renamed = os.environ['OTHER_NAME'] == url
print(user, url, renamed, shown, file=open(os.environ['HOME'] + '/migrations', 'a'))
"
"""
# A server that the role neither locks nor dumps; molecule/fleet covers one that it does.
DATABASE = {
    "app_database_driver": "postgresql+psycopg",
    "app_migrate_commands": [MIGRATE],
    "app_environment": {"OTHER_NAME": "{{ app_database_url }}"},
    "app_database_password": "of-the-app",
    "app_migration_password": "of-the-migration",
}


def test_a_release_migrates_once_as_the_migration_user(host, operator, version):
    source = version()
    host.check_output("rm -f /var/lib/fixture/migrations")
    for _ in range(2):
        done = operator.deploy(source, **DATABASE)
        assert done.code == 0, done.output
    assert "of-the-migration" not in done.output
    (line,) = host.check_output("cat /var/lib/fixture/migrations").splitlines()
    user, url, renamed, shown = line.split()
    assert (user, renamed, shown) == ("fixture", "True", "0")
    assert url.startswith("postgresql+psycopg://fixture_migrate:of-the-migration@")


def test_shared_folders_survive_releases_and_old_releases_are_removed(
    site, host, current, operator, version
):
    host.check_output("rm -rf /srv/fixture/shared/var")
    for _ in range(2):
        done = operator.deploy(version(), app_shared_paths=["var/uploads"], release_keep=2)
        assert done.code == 0, done.output
        host.check_output("flaskstack fixture run sh -c 'date >> var/uploads/file'")
    assert len(host.check_output("cat /srv/fixture/shared/var/uploads/file").splitlines()) == 2
    assert len(host.file("/srv/fixture/releases").listdir()) == 2
    used = host.check_output("readlink -f /srv/fixture/releases/*/.venv").split()
    environments = host.file("/srv/fixture/environments").listdir()
    assert {path.rsplit("/", 1)[1] for path in used} == set(environments)
    assert site.get("/").text == current()
