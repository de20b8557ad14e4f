"""Changes of reconfigure.yml are in effect."""

import pymysql
import pytest

APP, BACKGROUND, MIGRATION = "my_shop", "my_shop_jobs", "my_shop_migrate"


def test_changed_variables_are_in_effect(reported):
    assert reported[0] == reported[1]


def test_server_listens_only_for_the_app(listening, address, remote):
    assert listening == {"127.0.0.1:3306"} | ({f"{address}:3306"} if remote else set())


@pytest.mark.parametrize(
    ("user", "old"), [(APP, "app"), (BACKGROUND, "app"), (MIGRATION, "migration")]
)
def test_only_the_new_password_is_valid(connect, generated, user, old):
    connect(user)
    with pytest.raises(pymysql.OperationalError) as error:
        connect(user, password=generated(old))
    assert error.value.args[0] == 1045


def test_changed_statement_limits_apply_per_account(query, client, settings):
    seconds = {"mariadb": "@@max_statement_time", "mysql": "@@max_execution_time / 1000"}[client]
    assert query(f"SELECT {seconds}") == [(settings["mysql_statement_timeout"],)]
    assert query(f"SELECT {seconds}", user=BACKGROUND) == [(4,)]
    assert query(f"SELECT {seconds}", user=MIGRATION) == [(0,)]


def test_insecure_accounts_and_test_database_are_removed(sql, remote):
    accounts = sql("SELECT CONCAT(user, '@', host) FROM mysql.user").splitlines()
    pattern = "%" if remote else "localhost"
    assert {name for name in accounts if name.startswith(("@", "root@", APP))} == {
        "root@localhost",
        f"{APP}@{pattern}",
        f"{BACKGROUND}@{pattern}",
        f"{MIGRATION}@{pattern}",
    }
    databases = sql("SHOW DATABASES").splitlines()
    assert "test" not in databases
    assert "handmade" in databases
