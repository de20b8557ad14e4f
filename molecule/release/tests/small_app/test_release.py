"""A release is in use whole and well, or not at all.

Beside it (test_failure) are the other ways to fail, and deploys that are cut.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from helpers.wait import wait_for

NEW = re.compile(r"(\S+) would replace")
COMPLETE = "stat -Lc '%i %z' /srv/fixture/current/.venv/.complete"
OFTEN = {"threads": 2, "most": 100_000, "pause": 0.02}  # how often the site is asked meanwhile


def test_the_release_serves_and_knows_its_name(site, current):
    assert site.get("/").text == current()


@pytest.fixture(scope="module")
def deployed(site, host, current, history, operator, version):
    """Deploy another version while visitors come, one of whom stays; with what was seen of it."""
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


def test_no_request_is_refused_while_a_release_is_replaced(deployed):
    assert deployed.during > 20
    assert set(deployed.answers) == {"200"}


def test_a_long_answer_is_finished_by_the_release_that_began_it(deployed):
    assert deployed.slow_waits
    assert deployed.slow.text == deployed.before


def test_each_deploy_is_noted(history, deployed):
    (last,) = history()[deployed.noted :]
    assert (last["release"], last["previous"]) == (deployed.release, deployed.before)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", last["time"])
    assert "@" in last["by"]


def test_deploying_the_same_again_changes_nothing(current, operator, deployed):
    again = operator.deploy(deployed.source)
    assert (again.code, again.changed) == (0, 0)
    assert f"No change: {current()} is already active" in again.output


def test_a_unit_that_does_not_run_is_started(site, host, current, operator, deployed):
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


def test_a_release_that_is_never_well_gets_no_request(site, state, operator, version):
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


def test_a_release_whose_answer_is_another_one_is_not_well(state, operator, version):
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
def test_a_release_that_fails_in_its_slot_gives_it_back(site, state, operator, version, file):
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


def test_a_dependency_that_is_not_what_was_locked_is_not_installed(
    site, host, current, operator, version
):
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


def test_check_mode_only_looks_and_what_was_interrupted_is_made_anew(
    site, host, current, operator, version
):
    source = version("requirements.lock", "gunicorn", "# another lock\ngunicorn")
    before, releases = current(), host.file("/srv/fixture/releases").listdir()
    look = operator.deploy(source, "--check")
    assert (look.code, look.changed) == (0, 2)  # it would be built and put in use
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
    # The same for its environment.
    host.check_output(
        "cd /srv/fixture/current/.venv && rm -r .complete lib/python3*/site-packages/gunicorn"
    )
    done = operator.deploy(source)
    assert done.code == 0, done.output
    host.check_output("/srv/fixture/current/.venv/bin/gunicorn --version")
    assert site.get("/").text == current()


def test_a_source_without_a_lock_is_refused(current, operator, version):
    before, source = current(), version()
    (source / "requirements.lock").unlink()
    done = operator.deploy(source)
    assert done.code != 0
    assert "app_requirements is requirements.lock: must be files in" in done.output
    assert current() == before


# Writes down who migrated with which address, and whether another process' arguments show it.
MIGRATE = """python -c "
import glob, os, pwd
url = os.environ['DATABASE_URL']
shown = sum(url.encode() in open(name, 'rb').read() for name in glob.glob('/proc/[0-9]*/cmdline'))
user = pwd.getpwuid(os.getuid()).pw_name
renamed = os.environ['OTHER_NAME'] == url
print(user, url, renamed, shown, file=open(os.environ['HOME'] + '/migrations', 'a'))
"
"""
# One that is not ours to lock or to dump; molecule/fleet has one that is.
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


def test_shared_folders_outlive_a_release_and_only_so_many_are_kept(
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
