"""Two of five apps are removed completely, and the others are unchanged."""

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

# A unit of the operator. Its name begins with the name of the app.
THEIRS = "/etc/systemd/system/shop_libs-backup.service"


def test_removal_needs_the_name_of_the_app(shop_libs):
    result = shop_libs.run("remove_app", remove_app_confirm="shop")
    assert result.code != 0
    assert "Nothing was removed" in result.output
    assert shop_libs.serves


def test_check_mode_lists_the_removal_and_removes_nothing(host, shop_libs):
    left = host.check_output(LEFT.format("shop_libs"))
    result = shop_libs.play("remove_app", "--check", remove_app_confirm="shop_libs")
    assert "changed: [host] => (item=/srv/shop_libs)" in result.output
    assert result.changed > 0
    assert host.check_output(LEFT.format("shop_libs")) == left
    assert shop_libs.serves


@pytest.fixture(scope="module")
def removal():
    """Return the results of the removal, which runs once."""
    return SimpleNamespace(state=None, theirs=False, another=None)


@pytest.fixture
def removed(host, shop_libs, filedrop, sql, state, removal):
    """Remove two apps: one with a file and a table, the other with uploads and a timer."""
    if not removal.state:
        host.check_output("echo kept > /srv/shop_libs/shared/uploads/file")
        sql.rows("CREATE TABLE shop_libs.kept SELECT 'kept row' AS body")
        host.check_output("systemd-run --unit=shop_libs-theirs sleep infinity")
        host.check_output(f"touch {THEIRS}")
        before = state()
        shop_libs.play("remove_app", remove_app_confirm="shop_libs")
        removal.state = before, state()
        removal.theirs = host.run("systemctl is-active shop_libs-theirs && rm %s", THEIRS).succeeded
        host.run("systemctl stop shop_libs-theirs")
        removal.another = filedrop.play("site.yml", "--skip-tags=access")
        filedrop.play("remove_app", remove_app_confirm="filedrop")
    return removal


@pytest.mark.usefixtures("removed")
@pytest.mark.parametrize("app", ["shop_libs", "filedrop"])
def test_no_trace_is_left(host, app):
    assert host.check_output(LEFT.format(app)) == ""


@pytest.mark.usefixtures("removed")
def test_every_file_has_an_owner(host):
    assert host.check_output("find / -xdev -nouser -o -xdev -nogroup") == ""


def test_units_of_the_operator_are_kept(removed):
    assert removed.theirs


@pytest.mark.usefixtures("removed")
def test_requests_for_its_domain_are_refused(shop_libs, filedrop):
    for app in (shop_libs, filedrop):
        with pytest.raises(requests.ConnectionError):
            app.site.get("/")


@pytest.mark.usefixtures("removed")
def test_its_database_and_files_are_backed_up(host):
    backups = "/var/backups/shop_libs"
    assert "kept row" in host.check_output(f"zcat {backups}/*-database.sql.gz")
    archive = f"tar --extract --to-stdout --gzip --file {backups}/*-files.tar.gz"
    assert host.check_output(f"{archive} srv/shop_libs/shared/uploads/file") == "kept"
    assert "uploads/" in host.check_output("tar --list --file /var/backups/filedrop/*.tar*")
    assert host.file(backups).mode == 0o700


def test_the_other_apps_are_unchanged(removed, shop, dice, blog):
    before, after = removed.state
    assert before == after
    assert [app.name for app in (shop, dice, blog) if not app.serves] == []


def test_site_yml_of_another_app_changes_nothing(removed):
    assert removed.another.changed == 0
    assert "No change" in removed.another.output
    assert removed.another.warnings == []


@pytest.mark.usefixtures("removed")
def test_a_second_removal_changes_nothing(shop_libs):
    result = shop_libs.play("remove_app", remove_app_confirm="shop_libs")
    assert result.changed == 0
    assert result.warnings == []
