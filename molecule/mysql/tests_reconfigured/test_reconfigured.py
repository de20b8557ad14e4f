"""What changed once reconfigure.yml had run."""

import pymysql
import pytest

APP, MIGRATION = "my_shop", "my_shop_migrate"


def test_other_values_reached_the_server(reported):
    assert reported[0] == reported[1]


def test_other_settings_reached_the_server(sql):
    assert sql("SELECT @@max_heap_table_size") == str(8 * 2**20)


def test_listens_only_for_the_app(host, address, remote):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {place for place in listening if not place.endswith(":22")} == ({f"{address}:3306"} if remote else set())


@pytest.mark.parametrize(("user", "old"), [(APP, "app"), (MIGRATION, "migration")])
def test_only_the_new_password_opens(connect, generated, user, old):
    connect(user)
    with pytest.raises(pymysql.OperationalError) as error:
        connect(user, password=generated(old))
    assert error.value.args[0] == 1045


def test_new_statement_limit_binds_the_app(ask, settings):
    slow = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT SUM(SLEEP(0.1)) FROM n"
    limit = settings["mysql_statement_timeout"]
    assert ask(slow.format(limit * 10 - 5)) == [(0,)]
    with pytest.raises(pymysql.MySQLError, match=r"(?i)max_statement_time|maximum statement execution time"):
        ask(slow.format(limit * 30))


def test_nothing_is_left_open(sql, remote):
    accounts = sql("SELECT CONCAT(user, '@', host) FROM mysql.user").splitlines()
    pattern = "%" if remote else "localhost"
    assert {name for name in accounts if name.startswith(("@", "root@", APP))} == {
        "root@localhost",
        f"{APP}@{pattern}",
        f"{MIGRATION}@{pattern}",
    }
    assert "test" not in sql("SHOW DATABASES").splitlines()
