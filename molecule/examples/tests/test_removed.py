"""Two of six apps are removed completely, and the others are unchanged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import requests

# All traces of an app, except in backups and logs.
LEFT = r"""
find / -xdev \( -path /var/backups -o -path /var/log \) -prune -o -name '*{0}*' -print
find /run /dev/shm /tmp -name '*{0}*'
grep --recursive --files-with-matches {0} /etc /srv /usr/local --exclude='*-'
getent passwd | grep {0}
getent group | grep {0}
mysql --execute "SHOW DATABASES LIKE '{0}%'"
mysql --execute "SELECT host FROM mysql.user WHERE user LIKE '{0}%'"
systemctl list-units --all --plain --no-legend '*{0}*'
systemctl list-unit-files --no-legend '*{0}*'
ps -e -o cgroup= | grep {0}
true
"""


# A unit of the operator with the name of the app as a prefix.
THEIRS = "/etc/systemd/system/blog_2-backup.service"


def test_removal_needs_the_name_of_the_app(blog_2):
    for answer in ({}, {"remove_app_confirm": "shop"}):
        result = blog_2.run("remove_app", **answer)
        assert result.code != 0
        assert "Nothing was removed" in result.output
    assert blog_2.serves


def test_check_mode_lists_the_removal_and_removes_nothing(host, blog_2):
    left = host.check_output(LEFT.format("blog_2"))
    result = blog_2.play("remove_app", "--check", remove_app_confirm="blog_2")
    assert "changed: [host] => (item=/srv/blog_2)" in result.output
    assert result.changed > 0
    assert host.check_output(LEFT.format("blog_2")) == left
    assert blog_2.serves


@pytest.fixture(scope="module")
def removal():
    """Return the results of the removal, which runs once."""
    return SimpleNamespace(state=None, theirs=False)


@pytest.fixture
def removed(host, blog_2, filedrop, sql, state, removal):
    """Remove two apps: one with a file and a table, the other with uploads and a timer."""
    if not removal.state:
        host.check_output("echo kept > /srv/blog_2/shared/uploads/file")
        sql.rows("CREATE TABLE blog_2.kept SELECT 'kept row' AS body")
        host.check_output("systemd-run --unit=blog_2-theirs sleep infinity")
        host.check_output(f"touch {THEIRS}")
        before = state()
        blog_2.play("remove_app", remove_app_confirm="blog_2")
        removal.state = before, state()
        removal.theirs = host.run("systemctl is-active blog_2-theirs && rm %s", THEIRS).succeeded
        host.run("systemctl stop blog_2-theirs")
        filedrop.play("remove_app", remove_app_confirm="filedrop")
    return removal


@pytest.mark.usefixtures("removed")
@pytest.mark.parametrize("app", ["blog_2", "filedrop"])
def test_no_trace_is_left(host, app):
    assert host.check_output(LEFT.format(app)) == ""


@pytest.mark.usefixtures("removed")
def test_every_file_has_an_owner(host):
    assert host.check_output("find / -xdev -nouser -o -xdev -nogroup") == ""


def test_units_of_the_operator_are_kept(removed):
    assert removed.theirs


@pytest.mark.usefixtures("removed")
def test_its_domain_is_refused(blog_2, filedrop):
    for app in (blog_2, filedrop):
        with pytest.raises(requests.ConnectionError):
            app.site.get("/")


@pytest.mark.usefixtures("removed")
def test_its_database_and_files_are_backed_up(host):
    assert "kept row" in host.check_output("zcat /var/backups/blog_2/*-database.sql.gz")
    archive = "tar --extract --to-stdout --gzip --file /var/backups/blog_2/*-files.tar.gz"
    assert host.check_output(f"{archive} srv/blog_2/shared/uploads/file") == "kept"
    assert "uploads/" in host.check_output("tar --list --file /var/backups/filedrop/*.tar*")
    assert host.file("/var/backups/blog_2").mode == 0o700


def test_the_other_apps_are_unchanged(removed, shop, dice, blog):
    before, after = removed.state
    assert before == after
    assert shop.serves
    assert dice.site.get("/").status_code == 200
    assert blog.site.get("/").status_code == 200


@pytest.mark.usefixtures("removed")
def test_another_app_is_unchanged_by_site_yml(blog):
    done = blog.play("site.yml", "--skip-tags=access")
    assert done.changed == 0
    assert "No change" in done.output
    assert done.warnings == []


@pytest.mark.usefixtures("removed")
def test_a_second_removal_changes_nothing(blog_2):
    result = blog_2.play("remove_app", remove_app_confirm="blog_2")
    assert result.changed == 0
    assert result.warnings == []
