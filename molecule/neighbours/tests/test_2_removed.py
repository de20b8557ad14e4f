"""A third app is removed completely, and nothing of the others."""

from __future__ import annotations

import pytest
import requests

from asking import Site

# Everywhere but in what is kept, in the backups of passwd and the like, and in logs.
LEFT = r"""
find / -xdev \( -path /var/backups -o -path /var/log \) -prune -o -name '*blog_2*' -print
find /run /dev/shm /tmp -name '*blog_2*'
grep --recursive --files-with-matches --word-regexp blog_2 /etc --exclude='*-'
getent passwd | grep blog_2
getent group | grep blog_2
mysql --execute "SHOW DATABASES LIKE 'blog_2%'"
mysql --execute "SELECT host FROM mysql.user WHERE user LIKE 'blog_2%'"
systemctl list-units --all --plain --no-legend '*blog_2*'
systemctl list-unit-files --no-legend '*blog_2*'
ps -e -o cgroup= | grep blog_2
true
"""


def test_nothing_is_removed_without_the_apps_name(run, serves):
    for answer in ({}, {"remove_app_confirm": "shop"}):
        result = run("blog_2", "remove_app", **answer)
        assert result.code != 0
        assert "Nothing was removed" in result.output
    assert serves("blog_2")


def test_a_dry_run_shows_what_would_go_and_removes_nothing(host, run, serves):
    left = host.check_output(LEFT)
    result = run("blog_2", "remove_app", "--check", remove_app_confirm="blog_2")
    assert result.code == 0, result.output
    assert "changed: [host] => (item=/srv/blog_2)" in result.output
    assert result.changed > 0
    assert host.check_output(LEFT) == left
    assert serves("blog_2")


@pytest.fixture(scope="module")
def removed(request):
    """Whether the app is gone already: the tests below remove it once."""
    return []


@pytest.fixture
def removal(host, run, sql, state, removed):
    """Remove the app, which has made a file and a row; give the playbook's result and the state."""
    if not removed:
        host.check_output("echo kept > /srv/blog_2/shared/uploads/file")
        sql.rows("CREATE TABLE blog_2.kept SELECT 'kept row' AS body")
        before = state()
        removed += [run("blog_2", "remove_app", remove_app_confirm="blog_2"), before]
    return removed


def test_nothing_of_it_is_left(host, removal):
    assert removal[0].code == 0, removal[0].output
    assert host.check_output(LEFT) == ""


def test_its_site_is_refused(address, removal):
    with pytest.raises(requests.ConnectionError):
        Site(address, "blog-2.example.org").get("/")


def test_its_database_and_files_are_kept(host, removal):
    assert "kept row" in host.check_output("zcat /var/backups/blog_2/*-database.sql.gz")
    archive = "tar --extract --to-stdout --gzip --file /var/backups/blog_2/*-files.tar.gz"
    assert host.check_output(f"{archive} srv/blog_2/shared/uploads/file") == "kept"
    assert host.file("/var/backups/blog_2").mode == 0o700


def test_the_others_serve_and_are_as_they_were(removal, state, serves):
    assert state() == removal[1]
    assert serves("shop")


def test_a_second_removal_changes_nothing(run, removal):
    result = run("blog_2", "remove_app", remove_app_confirm="blog_2")
    assert result.code == 0, result.output
    assert result.changed == 0
    assert "WARNING" not in result.output
