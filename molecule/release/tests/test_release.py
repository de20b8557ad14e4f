"""A release is in use whole and well, or not at all."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from waiting import wait_for

NEW = re.compile(r"(\S+) would replace")


def test_the_release_serves_and_knows_its_name(site, current):
    assert site.get("/").text == current()


def test_another_version_serves_from_the_same_environment(site, host, current, deploy, version):
    before, environment = (
        current(),
        host.check_output("stat -Lc '%i %z' /srv/fixture/current/.venv/.complete"),
    )
    done = deploy(version())
    assert done.code == 0, done.output
    assert site.get("/").text == current() != before
    assert f"{current()} replaced {before}" in done.output
    assert host.check_output("stat -Lc '%i %z' /srv/fixture/current/.venv/.complete") == environment


def test_deploying_the_same_again_changes_nothing(current, deploy, version):
    source = version()
    deploy(source)
    again = deploy(source)
    assert (again.code, again.changed) == (0, 0)
    assert f"Nothing new: {current()} already serves" in again.output


def test_no_request_is_refused_while_a_release_is_replaced(site, deploy, version):
    with site.under_load("/", threads=2, most=100_000) as answers:
        wait_for(lambda: answers.total() > 20)
        done = deploy(version())
        during = answers.total()
        wait_for(lambda: answers.total() > during + 20)
    assert done.code == 0, done.output
    assert set(answers) == {"200"}


def test_a_release_that_is_never_well_gets_no_request(site, state, deploy, version):
    before = state()
    unwell = version("web.py", "WELL = True", "WELL = False\nprint('no good today', flush=True)")
    with site.under_load("/", threads=2, most=100_000) as answers:
        done = deploy(unwell, release_health_timeout=3)
    assert done.code != 0
    assert 'failed at "Start the release": fixture-web@' in done.output
    assert "503 Service Unavailable" in done.output
    assert "no good today" in done.output
    assert " serves as before." in done.output
    assert set(answers) == {"200"}
    assert state() == before


def test_a_release_whose_answer_is_another_one_is_not_well(state, deploy, version):
    before = state()
    wanted = {"release_health_status": 204, "release_health_body": "^up$"}
    done = deploy(version(), release_health_timeout=2, **wanted)
    assert done.code != 0
    assert "(expected is 204)" in done.output
    done = deploy(version(), release_health_timeout=2, **(wanted | {"release_health_status": 200}))
    assert "(expected is a body with ^up$)" in done.output
    assert state() == before


def test_a_release_that_cannot_start_is_not_waited_for(state, deploy, version):
    before, started = state(), time.monotonic()
    source = version("web.py", "import os", "import os, not_there")
    done = deploy(source, release_health_timeout=120)
    assert time.monotonic() - started < 60
    assert done.code != 0
    assert re.search(r"fixture-web@[ab].service died \(exit-code\)", done.output)
    assert "ModuleNotFoundError: No module named 'not_there'" in done.output
    assert state() == before


DIES = """import os, threading, time

threading.Thread(target=lambda: (time.sleep({seconds}), os._exit(1)), daemon=True).start()
"""


def test_a_release_that_dies_within_seconds_is_not_switched_to(site, state, deploy, version):
    before = state()
    source = version("web.py", "import os", DIES.format(seconds=2))
    with site.under_load("/", threads=2, most=100_000) as answers:
        done = deploy(source, release_watch=10)
    assert done.code != 0
    assert 'failed at "Watch the release"' in done.output
    assert "of its workers" in done.output
    assert set(answers) == {"200"}
    assert state() == before


def test_a_background_process_that_dies_brings_the_old_release_back(
    site, host, state, deploy, version
):
    before = state()
    with site.under_load("/", threads=2, most=100_000) as answers:
        done = deploy(version("clock.py", "import time", "import time, not_there"), release_watch=3)
    assert done.code != 0
    assert "fixture-clock@1.service died" in done.output
    assert "ModuleNotFoundError: No module named 'not_there'" in done.output
    assert set(answers) == {"200"}
    assert state() == before
    used = host.check_output(
        "readlink /proc/$(systemctl show --value --property MainPID fixture-clock@1)/cwd"
    )
    assert used == host.check_output("readlink -f /srv/fixture/current")


def test_a_long_answer_is_finished_by_the_release_that_began_it(
    site, host, current, deploy, version
):
    before = current()
    assert deploy(version()).code == 0
    began = current()
    assert began != before
    host.check_output("rm -f /var/lib/fixture/go")
    with ThreadPoolExecutor(1) as visitor:
        slow = visitor.submit(site.get, "/slow", timeout=300)
        wait_for(lambda: site.get("/waiting").text != "0")
        done = deploy(version())
        assert done.code == 0, done.output
        assert site.get("/").text == current() != began
        assert not slow.done()
        host.check_output("touch /var/lib/fixture/go")
        assert slow.result().text == began


def test_a_secret_in_the_journal_is_masked(host, deploy, version):
    key = host.check_output("sed -n 's/^SECRET_KEY=//p' /etc/fixture/environment").strip("'\"")
    source = version(
        "web.py", "WELL = True", "WELL = True\nraise SystemExit(os.environ['SECRET_KEY'])"
    )
    done = deploy(source)
    assert done.code != 0
    assert "********" in done.output
    assert len(key) > 30
    assert key not in done.output


def cut_when(host, deploy, source, condition):
    """Start a deploy; cut it, and what it has running on the host, once the condition holds."""
    with deploy.started(source, release_watch=20) as cut:
        wait_for(lambda: host.run(condition).rc == 0, 60, every=0.05)
        cut()
        holders = (
            "lslocks --noheadings --output PID,PATH | awk '$2 == \"/srv/fixture/.lock\" {print $1}'"
        )
        for pid in host.check_output(holders).split():
            host.check_output(f"kill -KILL {pid}")


@pytest.mark.parametrize("then", ["the same", "another", "one that fails"])
def test_a_deploy_that_was_cut_before_the_switch_leaves_nothing(
    host, state, current, deploy, version, then
):
    before, source = state(), version()
    both = "test -e /srv/fixture/instances/a -a -e /srv/fixture/instances/b"
    cut_when(host, deploy, source, both)
    assert state() != before
    fails = version("web.py", "import os", "import os, not_there")
    done = deploy({"the same": source, "another": version(), "one that fails": fails}[then])
    if then == "one that fails":
        assert state() == before
    else:
        assert done.code == 0, done.output
        assert host.run(both).rc != 0
        assert host.run("ls /srv/fixture/.deploying").rc != 0


def test_a_deploy_that_was_cut_after_the_switch_is_finished_by_the_next(
    site, host, current, deploy, version, history
):
    before, door = current(), host.check_output("readlink /srv/fixture/web.sock")
    cut_when(host, deploy, version(), f"test $(readlink /srv/fixture/web.sock) != {door}")
    switched = current()
    assert switched != before
    done = deploy(version("web.py", "import os", "import os, not_there"))
    assert f"{switched} serves as before" in done.output
    assert site.get("/").text == current() == switched
    assert history()[-1]["release"] == switched
    assert not host.run("ls /srv/fixture/.deploying").stdout


def test_each_deploy_is_noted(current, deploy, version, history):
    before = current()
    assert deploy(version()).code == 0
    last = history()[-1]
    assert (last["release"], last["previous"]) == (current(), before)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", last["time"])
    assert "@" in last["by"]


def test_a_release_restarts_in_its_slot_where_memory_allows_only_one(
    site, host, current, deploy, version
):
    before, door = current(), host.check_output("readlink /srv/fixture/web.sock")
    with site.under_load("/", threads=2, most=100_000) as answers:
        done = deploy(version(), release_strategy="restart")
    assert done.code == 0, done.output
    assert set(answers) == {"200"}
    assert site.get("/").text == current() != before
    assert host.check_output("readlink /srv/fixture/web.sock") == door


@pytest.mark.parametrize("file", ["web.py", "clock.py"])
def test_a_release_that_fails_in_its_slot_gives_it_back(site, state, deploy, version, file):
    before = state()
    first = {"web.py": "import os", "clock.py": "import time"}[file]
    with site.under_load("/", threads=2, most=100_000) as answers:
        done = deploy(
            version(file, first, f"{first}, not_there"), release_strategy="restart", release_watch=3
        )
    assert done.code != 0
    assert "No module named 'not_there'" in done.output
    assert set(answers) == {"200"}
    assert state() == before


def test_a_dependency_that_is_not_what_was_locked_is_not_installed(
    site, host, current, deploy, version
):
    before = current()
    source = version("requirements.lock", "sha256:", "sha256:0000")
    lock = source / "requirements.lock"
    lock.write_text(
        re.sub(r"sha256:(\w{64})\w*", r"sha256:\1", lock.read_text()).replace(
            "sha256:b", "sha256:c"
        )
    )
    done = deploy(source)
    assert done.code != 0
    assert "DO NOT MATCH THE HASHES" in done.output
    assert site.get("/").text == current() == before
    assert not host.run("ls /srv/fixture/environments/*/.complete | tail -n +2").stdout


def test_an_interrupted_installation_is_made_anew(site, host, current, deploy, version):
    source = version("requirements.lock", "gunicorn", "# another lock\ngunicorn")
    assert deploy(source).code == 0
    host.check_output(
        "cd /srv/fixture/current/.venv && rm -r .complete lib/python3*/site-packages/gunicorn"
    )
    done = deploy(source)
    assert done.code == 0, done.output
    host.check_output("/srv/fixture/current/.venv/bin/gunicorn --version")
    assert site.get("/").text == current()


def test_an_interrupted_copy_is_shipped_anew(site, host, current, deploy, version):
    source = version()
    release = NEW.search(deploy(source, "--check").output).group(1)
    for half in (release, f".{release}"):
        host.check_output(
            f"mkdir /srv/fixture/releases/{half} && touch /srv/fixture/releases/{half}/half"
        )
    done = deploy(source)
    assert done.code == 0, done.output
    assert site.get("/").text == current() == release
    assert not host.run("ls -d /srv/fixture/releases/*/half /srv/fixture/releases/.??*").stdout


def test_a_unit_that_does_not_run_is_started(site, host, current, deploy, version):
    source = version()
    deploy(source)
    host.check_output("systemctl stop fixture-clock@1.service")
    done = deploy(source)
    assert done.code == 0, done.output
    assert host.service("fixture-clock@1.service").is_running
    assert site.get("/").text == current()


def test_only_so_many_releases_are_kept(site, host, current, deploy, version):
    for _ in range(2):
        last = deploy(version(), release_keep=2)
        assert last.code == 0, last.output
    assert len(host.file("/srv/fixture/releases").listdir()) == 2
    used = host.check_output("readlink -f /srv/fixture/releases/*/.venv").split()
    environments = host.file("/srv/fixture/environments").listdir()
    assert {path.rsplit("/", 1)[1] for path in used} == set(environments)
    assert site.get("/").text == current()


def test_check_mode_says_what_would_happen_and_does_nothing(host, current, deploy, version):
    before, releases = current(), host.file("/srv/fixture/releases").listdir()
    done = deploy(version(), "--check")
    assert (done.code, done.changed) == (0, 2)  # it would be built and put in use
    assert f"would replace {before}" in done.output
    assert host.file("/srv/fixture/releases").listdir() == releases


def test_an_interpreter_that_the_app_does_not_run_on_is_refused(host, current, deploy, version):
    before, releases = current(), host.file("/srv/fixture/releases").listdir()
    done = deploy(version("pyproject.toml", ">=3.11", ">=4"))
    assert done.code != 0
    assert re.search(
        r'app_python is python3: is 3\S+ on trixie,\s+but .* requires-python = ">=4"', done.output
    )
    assert (current(), host.file("/srv/fixture/releases").listdir()) == (before, releases)


def test_a_source_without_a_lock_is_refused(current, deploy, version):
    before, source = current(), version()
    (source / "requirements.lock").unlink()
    done = deploy(source)
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


def test_a_release_migrates_once_as_the_migration_user(host, deploy, version):
    source = version()
    host.check_output("rm -f /var/lib/fixture/migrations")
    for _ in range(2):
        done = deploy(source, **DATABASE)
        assert done.code == 0, done.output
    assert "of-the-migration" not in done.output
    (line,) = host.check_output("cat /var/lib/fixture/migrations").splitlines()
    user, url, renamed, shown = line.split()
    assert (user, renamed, shown) == ("fixture", "True", "0")
    assert url.startswith("postgresql+psycopg://fixture_migrate:of-the-migration@")


def test_a_failed_migration_leaves_the_old_release_and_says_why(site, current, deploy, version):
    before = current()
    failing = DATABASE | {"app_migrate_commands": ["echo no table at $DATABASE_URL; exit 3"]}
    done = deploy(version(), **failing)
    assert done.code != 0
    assert "no table at postgresql+psycopg://fixture_migrate:********@" in done.output
    assert "of-the-migration" not in done.output
    assert f"{before} serves on trixie" in done.output
    assert site.get("/").text == current() == before


def test_shared_folders_outlive_a_release(host, deploy, version):
    host.check_output("rm -rf /srv/fixture/shared/var")
    for _ in range(2):
        done = deploy(version(), app_shared_paths=["var/uploads"])
        assert done.code == 0, done.output
        host.check_output("fixture-run sh -c 'date >> var/uploads/file'")
    assert len(host.check_output("cat /srv/fixture/shared/var/uploads/file").splitlines()) == 2
