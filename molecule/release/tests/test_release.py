"""A release is in use whole and well, or not at all."""

import re
import time

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


def test_a_release_that_is_not_well_gives_way_to_the_old_one(site, current, deploy, version):
    before = current()
    unwell = version("web.py", "WELL = True", "WELL = False\nprint('no good today', flush=True)")
    done = deploy(unwell, release_health_timeout=3)
    assert done.code != 0
    assert '"Wait until the release is well"' in done.output
    assert "503 Service Unavailable" in done.output
    assert "no good today" in done.output
    assert f"{before} serves as before" in done.output
    assert site.get("/").text == current() == before


def test_a_release_that_cannot_start_is_not_waited_for(site, current, deploy, version):
    before, started = current(), time.monotonic()
    source = version("web.py", "import os", "import os, not_there")
    done = deploy(source, release_health_timeout=120)
    assert time.monotonic() - started < 60
    assert done.code != 0
    assert "fixture-web@a.service is" in done.output
    assert "ModuleNotFoundError: No module named 'not_there'" in done.output
    assert site.get("/").text == current() == before


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
    assert "app_requirements is requirements.lock: must be a file in" in done.output
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
DATABASE = {
    "app_migrate_command": MIGRATE,
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
    assert url.startswith("mysql+pymysql://fixture_migrate:of-the-migration@")


def test_a_failed_migration_leaves_the_old_release_and_says_why(site, current, deploy, version):
    before = current()
    failing = DATABASE | {"app_migrate_command": "echo no table at $DATABASE_URL; exit 3"}
    done = deploy(version(), **failing)
    assert done.code != 0
    assert "no table at mysql+pymysql://fixture_migrate:********@" in done.output
    assert "of-the-migration" not in done.output
    assert f"{before} serves as before" in done.output
    assert site.get("/").text == current() == before


def test_shared_folders_outlive_a_release(host, deploy, version):
    host.check_output("rm -rf /srv/fixture/shared/var")
    for _ in range(2):
        done = deploy(version(), app_shared_paths=["var/uploads"])
        assert done.code == 0, done.output
        host.check_output("fixture-run sh -c 'date >> var/uploads/file'")
    assert len(host.check_output("cat /srv/fixture/shared/var/uploads/file").splitlines()) == 2
