"""Settings of both database providers, the default provider, and rejected settings."""

from __future__ import annotations

import configparser

import pytest

from mysql_server import installed_server_checks

SECRETS = {"app_database_password": "correct-horse", "app_migration_password": "battery-staple"}
UBUNTU = {
    "distribution": "Ubuntu",
    "distribution_version": "24.04",
    "distribution_release": "noble",
}
SID = {"distribution": "Debian", "distribution_version": "forky/sid"}


@pytest.fixture
def settings(render):
    """Return `settings(**variables)`, which returns the parsed option file and its text."""

    def settings(**variables):
        text = render("mysql", "etc/mysql/zz-flaskstack.cnf.j2", **SECRETS, **variables)
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(text)
        assert parser.sections() == ["mysqld"]
        return dict(parser["mysqld"]), text

    return settings


@pytest.mark.parametrize("provider", ["mariadb", "mysql"])
def test_server_requires_tls_where_other_hosts_connect(settings, provider):
    values, text = settings(mysql_provider=provider)
    assert values["bind_address"] == "127.0.0.1"
    assert "require_secure_transport" not in values
    assert not any(secret in text for secret in SECRETS.values())

    remote = {"mysql_bind_address": "10.0.0.5", "app_database_port": 3307}
    values, _ = settings(mysql_provider=provider, **remote)
    assert (values["bind_address"], values["port"]) == ("127.0.0.1,10.0.0.5", "3307")
    assert values["require_secure_transport"] == "ON"
    assert values["ssl_cert"] == "/etc/mysql/server-cert.pem"


def test_settings_of_one_provider(settings):
    mariadb, _ = settings(mysql_provider="mariadb")
    mysql, _ = settings(mysql_provider="mysql")
    assert {name: mariadb[name] for name in set(mariadb) - set(mysql)} == {
        "binlog_format": "ROW",
        "loose_innodb_snapshot_isolation": "OFF",
        "loose_character_set_collations": "utf8mb4=utf8mb4_unicode_520_ci",
    }
    assert set(mysql) - set(mariadb) == {"mysqlx", "innodb_buffer_pool_chunk_size", "init_connect"}
    start, *_, end = mysql["init_connect"]
    assert (start, end) == ('"', '"')  # otherwise a # in it would start a comment


def test_plan_sets_sizes_and_timeouts(settings):
    plan = {
        "mysql_wait_timeout": 2345,
        "mysql_innodb_buffer_pool_size": 640,
        "mysql_performance_schema": True,
    }
    values, _ = settings(plan=plan)
    assert values["wait_timeout"] == "2345"
    assert values["innodb_buffer_pool_size"] == "640M"
    assert values["performance_schema"] == "ON"


def test_additional_settings_override_others(settings):
    _, text = settings(
        mysql_provider="mysql", mysql_settings={"mysqlx": "ON", "tmp_table_size": "32M"}
    )
    assert text.index("log_bin") < text.index("mysqlx = ON") < text.index("tmp_table_size = 32M")
    assert "mysqlx = OFF" not in text


@pytest.mark.parametrize(
    ("facts", "source", "provider"),
    [
        ({"distribution_version": "12.9"}, "", "mariadb"),
        ({"distribution_version": "13.1"}, "", "mariadb"),
        ({"distribution_version": "13.1"}, "mysql-8.4-lts", "mysql"),
        (SID, "", "mysql"),
        (UBUNTU, "", "mysql"),
    ],
)
def test_default_provider_of_a_distribution(evaluate, facts, source, provider):
    given = {"ansible_facts": facts, "mysql_apt_source": source}
    assert evaluate("mysql", "mysql_provider", **given) == provider


def test_accounts_have_the_passwords_and_limits_of_their_purpose(evaluate):
    given = SECRETS | {"app_database_password_previous": "what it was"}
    given["mysql_statement_timeout"] = 9
    background, app, migration = evaluate("mysql", "__mysql_accounts", **given)
    assert app == {
        "name": "shop",
        "password": "correct-horse",
        "previous": "what it was",
        "secret": "database",
        "privileges": "SELECT,INSERT,UPDATE,DELETE,EXECUTE,CREATE TEMPORARY TABLES",
        "limit": 9,
    }
    assert background == app | {"name": "shop_jobs", "limit": 0}
    assert (migration["name"], migration["secret"]) == ("shop_migrate", "migration")
    assert (migration["previous"], migration["privileges"]) == ("", "ALL")
    same = evaluate("mysql", "__mysql_accounts", **given, app_background_user="shop")
    assert same == [app, migration]


def test_defaults_are_accepted(evaluate):
    assert evaluate("mysql", "__mysql_problems", **SECRETS) == []


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("mysql_provider", {"mysql_provider": "mariadb", "mysql_apt_source": "mysql-8.4-lts"}),
        ("app_database_password", {"app_database_password": "s3cret"}),
        ("app_migration_password", {"app_migration_password": ""}),
        ("app_migration_user", {"app_migration_user": "shop"}),
        ("app_database_user", {"app_database_user": "root"}),
        ("app_background_user", {"app_background_user": "mysql.sys"}),
        ("app_migration_user", {"app_migration_user": "s" * 33}),
        ("app_database_name", {"app_database_name": "Mysql"}),
        ("app_database_name", {"app_database_name": "sh'op"}),
        ("mysql_bind_address", {"mysql_bind_address": "0.0.0.0"}),
        ("mysql_bind_address", {"mysql_bind_address": "127.0.0.1"}),
        ("app_database_host", {"app_database_host": "::1"}),
        (
            "app_database_host",
            {"mysql_bind_address": "10.0.0.5", "app_database_host": "127.0.0.1"},
        ),
        ("mysql_bind_address", {"groups": {"app": ["host", "elsewhere"]}}),
        ("mysql_settings", {"mysql_settings": {"max packet": "64M"}}),
        ("mysql_settings", {"mysql_settings": {"max_packet": "64M\nwait_timeout"}}),
        ("mysql_collation", {"mysql_collation": "latin1_swedish_ci"}),
        ("mysql_connect_timeout", {"mysql_connect_timeout": 0}),
        ("mysql_wait_timeout", {"mysql_wait_timeout": 1800, "app_database_pool_recycle": 1800}),
        ("mysql_innodb_lock_wait_timeout", {"mysql_innodb_lock_wait_timeout": 22}),
        ("mysql_max_connections", {"mysql_max_connections": 5}),
        ("mysql_innodb_buffer_pool_size", {"mysql_innodb_buffer_pool_size": 16}),
    ],
)
def test_invalid_settings_are_rejected(evaluate, variable, wrong):
    (message,) = evaluate("mysql", "__mysql_problems", **(SECRETS | wrong))
    assert message.startswith(variable)
    assert "s3cret" not in message


def shared_server(owner="blog", **server):
    """Return local facts of a server that app blog uses too, and the secrets."""
    common = {"app": owner, "address": "", "port": 3306}
    blog = common | {
        "app": "blog",
        "database": "blog",
        "users": ["blog", "blog_migrate"],
        "connections": 60,
        "pool_recycle": 1800,
        "packet": 64,
    }
    server = common | {"provider": "mariadb"} | server
    local = {"flaskstack_mysql": server, "flaskstack_mysql_blog": blog}
    return SECRETS | {"ansible_facts": {"ansible_local": local}}


def plan_with(connections):
    """Return a plan with connections for the app and ten for administrators."""
    return {"site_plan": {"host": {"connections_needed": connections + 10}}}


def test_sufficient_server_of_another_app_is_accepted(evaluate):
    given = (
        shared_server() | plan_with(30) | {"mysql_wait_timeout": 10, "mysql_max_connections": 500}
    )
    given["app_upload_size"] = 100
    assert evaluate("mysql", "__mysql_problems", **given) == []
    facts = evaluate("mysql", "__mysql_facts", **given)
    assert facts["required"] == {
        "max_connections": 100,
        "wait_timeout": 3600,
        "max_allowed_packet": "202M",
    }
    assert facts["server"]["app"] == "blog"
    assert [app["database"] for app in facts["apps"]] == ["shop", "blog"]
    assert evaluate("mysql", "__mysql_is_owner", **given) is False


def test_insufficient_server_of_another_app_is_rejected(evaluate):
    wrong = {"mysql_bind_address": "10.0.0.5"}
    (message,) = evaluate("mysql", "__mysql_problems", **(shared_server() | wrong))
    assert message.startswith('mysql_bind_address is ""')
    assert "in the inventory of blog set mysql_bind_address: 10.0.0.5" in message
    assert "group_vars" not in message


@pytest.mark.parametrize(
    ("variable", "server", "wrong"),
    [
        ("app_database_port", {"address": "10.0.0.5"}, {"app_database_port": 3307}),
        ("mysql_provider", {"provider": "mysql"}, {}),
        ("app_database_name", {}, {"app_database_name": "blog"}),
        ("app_database_user", {}, {"app_database_user": "blog"}),
        ("app_migration_user", {}, {"app_migration_user": "blog"}),
        ("app_database_port", {}, {"app_database_host": "127.0.0.1", "app_database_port": 3307}),
    ],
)
def test_names_and_settings_of_another_app_are_rejected(evaluate, variable, server, wrong):
    given = shared_server(**server) | {"mysql_bind_address": server.get("address", "")} | wrong
    (message,) = evaluate("mysql", "__mysql_problems", **given)
    assert message.startswith(variable)
    assert "group_vars" in message


def test_settings_of_the_owner_suffice_for_all_apps(evaluate):
    given = shared_server(owner="shop") | plan_with(40)
    given["ansible_facts"]["ansible_local"]["flaskstack_mysql_blog"]["pool_recycle"] = 4000
    given["mysql_max_connections"] = 109
    facts = evaluate("mysql", "__mysql_facts", **given)
    shared = {"max_connections": 110, "wait_timeout": 8000}
    assert facts["shared"] == shared | {"max_allowed_packet": "64M"}
    # The plans of other apps read these.
    plan = facts["server"]["plan"]
    assert {f"mysql_{name}": value for name, value in shared.items()}.items() <= plan.items()
    assert (plan["mysql_net_read_timeout"], plan["mysql_performance_schema"]) == (30, False)
    given["mysql_max_connections"] = 500
    assert evaluate("mysql", "__mysql_facts", **given)["shared"]["max_connections"] == 500


@pytest.mark.parametrize(("upload", "packet"), [(1, "64M"), (64, "130M"), (4000, "1024M")])
def test_maximum_packet_depends_on_the_upload_size(settings, upload, packet):
    assert settings(app_upload_size=upload)[0]["max_allowed_packet"] == packet


@pytest.mark.parametrize(
    ("provider", "installed", "rejected"),
    [
        ("mariadb", [], False),
        ("mariadb", ["mariadbd", "mysqld"], False),
        ("mariadb", ["mysqld"], True),
        ("mysql", ["mysqld"], False),
        ("mysql", ["mariadbd"], True),
    ],
)
def test_installed_server_of_the_other_provider_is_rejected(provider, installed, rejected):
    files = [{"path": f"/usr/sbin/{name}"} for name in installed]
    (found,) = installed_server_checks(provider, files, "host")
    assert found["ok"] is not rejected
