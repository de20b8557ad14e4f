"""Settings of both database providers, the default provider, and rejected settings."""

from __future__ import annotations

import configparser

import pytest

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
def test_local_server_listens_on_loopback(settings, provider):
    values, _ = settings(mysql_provider=provider)
    assert values["bind_address"] == "127.0.0.1"
    assert "require_secure_transport" not in values


@pytest.mark.parametrize("provider", ["mariadb", "mysql"])
def test_remote_server_requires_tls(settings, provider):
    values, _ = settings(
        mysql_provider=provider, mysql_bind_address="10.0.0.5", app_database_port=3307
    )
    assert (values["bind_address"], values["port"]) == ("127.0.0.1,10.0.0.5", "3307")
    assert values["require_secure_transport"] == "ON"
    assert values["ssl_cert"] == "/etc/mysql/server-cert.pem"


def test_settings_of_one_provider(settings):
    mariadb, _ = settings(mysql_provider="mariadb")
    mysql, _ = settings(mysql_provider="mysql")
    assert set(mariadb) - set(mysql) == {
        "binlog_format",
        "loose_innodb_snapshot_isolation",
        "loose_character_set_collations",
    }
    assert set(mysql) - set(mariadb) == {"mysqlx", "innodb_buffer_pool_chunk_size", "init_connect"}


def test_init_connect_of_mysql_is_quoted(settings):
    start, *_, end = settings(mysql_provider="mysql")[0]["init_connect"]
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


@pytest.mark.parametrize("provider", ["mariadb", "mysql"])
def test_option_file_has_no_secret(settings, provider):
    _, text = settings(mysql_provider=provider)
    assert not any(secret in text for secret in SECRETS.values())


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


@pytest.mark.parametrize(
    ("facts", "provider", "package"),
    [
        ({}, "mariadb", "default-mysql-server"),
        ({}, "mysql", "mysql-server"),
        (UBUNTU, "mariadb", "mariadb-server"),
        (UBUNTU, "mysql", "mysql-server"),
    ],
)
def test_package_of_a_provider(evaluate, facts, provider, package):
    assert package in evaluate(
        "mysql", "__mysql_packages", ansible_facts=facts, mysql_provider=provider
    )


@pytest.mark.parametrize(("facts", "name"), [({}, "debian"), (UBUNTU, "ubuntu")])
def test_url_of_the_package_source_of_mysql(evaluate, facts, name):
    assert (
        evaluate("mysql", "mysql_apt_uri", ansible_facts=facts)
        == f"https://repo.mysql.com/apt/{name}"
    )


def test_accounts_have_the_previous_password_of_their_secret(evaluate):
    old = {"app_database_password_previous": "what it was"}
    accounts = evaluate("mysql", "__mysql_accounts", **SECRETS, **old)
    assert [account["previous"] for account in accounts] == ["what it was", "what it was", ""]
    assert [account["secret"] for account in accounts] == ["database", "database", "migration"]


def test_statement_limit_applies_only_to_requests(evaluate):
    limits = {"mysql_statement_timeout": 9}
    expression = "__mysql_accounts | items2dict('name', 'statement_timeout')"
    found = evaluate("mysql", expression, **SECRETS, **limits)
    assert found == {"shop": 9, "shop_jobs": 0, "shop_migrate": 0}
    same = {"app_background_user": "shop"}
    assert evaluate("mysql", expression, **SECRETS, **limits, **same) == {
        "shop": 9,
        "shop_migrate": 0,
    }


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
        ("app_database_user", {"app_background_user": "mysql.sys"}),
        ("app_database_user", {"app_migration_user": "s" * 33}),
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
        ("mysql_collation", {"mysql_collation": "latin1_swedish_ci"}),
        ("mysql_wait_timeout", {"mysql_connect_timeout": 0}),
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


def neighbours(owner="blog", **server):
    """Return local facts of a server that app blog uses too, and the secrets."""
    is_ = {
        "app": owner,
        "provider": "mariadb",
        "address": "",
        "port": 3306,
        "loopback": True,
        "max_connections": 100,
        "wait_timeout": 3600,
    }
    blog = {
        "app": "blog",
        "database": "blog",
        "users": ["blog", "blog_migrate"],
        "address": "",
        "port": 3306,
        "connections": 60,
        "pool_recycle": 1800,
    }
    local = {"flaskstack_mysql": is_ | server, "flaskstack_mysql_blog": blog}
    return SECRETS | {"ansible_facts": {"ansible_local": local}}


def needing(connections):
    """Return a plan with connections for the app and ten for administrators."""
    return {"site_plan": {"host": {"connections_needed": connections + 10}}}


def test_sufficient_server_of_another_app_is_accepted(evaluate):
    given = neighbours() | needing(30) | {"mysql_wait_timeout": 10, "mysql_max_connections": 10}
    given["app_upload_size"] = 100
    assert evaluate("mysql", "__mysql_problems", **given) == []
    assert evaluate("mysql", "{} | shared_settings(__mysql_apps)", **given) == {
        "max_connections": 100,
        "wait_timeout": 3600,
        "max_allowed_packet": "202M",
    }
    assert evaluate("mysql", "__mysql_is_owner", **given) is False


@pytest.mark.parametrize(
    ("variable", "server", "wrong", "advice"),
    [
        (
            'mysql_bind_address is ""',
            {},
            {"mysql_bind_address": "10.0.0.5"},
            "mysql_bind_address: 10.0.0.5",
        ),
    ],
)
def test_insufficient_server_of_another_app_is_rejected(evaluate, variable, server, wrong, advice):
    (message,) = evaluate("mysql", "__mysql_problems", **(neighbours(**server) | wrong))
    assert message.startswith(variable)
    assert f"in the inventory of blog set {advice}" in message
    assert "group_vars" not in message


@pytest.mark.parametrize(
    ("variable", "server", "wrong"),
    [
        ("app_database_port", {"address": "10.0.0.5"}, {"app_database_port": 3307}),
        ("mysql_provider", {"provider": "mysql"}, {}),
        ("app_database_name", {}, {"app_database_name": "blog"}),
        ("app_database_user", {}, {"app_database_user": "blog"}),
        ("app_database_user", {}, {"app_migration_user": "blog"}),
        ("app_database_port", {}, {"app_database_host": "127.0.0.1", "app_database_port": 3307}),
    ],
)
def test_names_and_settings_of_another_app_are_rejected(evaluate, variable, server, wrong):
    given = neighbours(**server) | {"mysql_bind_address": server.get("address", "")} | wrong
    (message,) = evaluate("mysql", "__mysql_problems", **given)
    assert message.startswith(variable)
    assert "group_vars" in message


def test_settings_of_the_owner_suffice_for_all_apps(evaluate):
    given = neighbours(owner="shop") | needing(40)
    given["ansible_facts"]["ansible_local"]["flaskstack_mysql_blog"]["pool_recycle"] = 4000
    shared = evaluate("mysql", "__mysql_shared", **given, mysql_max_connections=109)
    assert (shared["max_connections"], shared["wait_timeout"]) == (110, 8000)
    shared = evaluate("mysql", "__mysql_shared", **given, mysql_max_connections=500)
    assert shared["max_connections"] == 500


@pytest.mark.parametrize(
    ("upload", "packet"), [(1, "64M"), (31, "64M"), (64, "130M"), (4000, "1024M")]
)
def test_maximum_packet_depends_on_the_upload_size(settings, upload, packet):
    assert settings(app_upload_size=upload)[0]["max_allowed_packet"] == packet


def test_only_the_owner_removes_insecure_defaults(evaluate):
    assert "test" in evaluate("mysql", "__mysql_insecure", **neighbours(owner="shop"))
    own = evaluate("mysql", "__mysql_insecure", **neighbours())
    assert own.endswith("WHERE user IN %(users)s AND host <> %(host)s")


def test_databases_of_other_apps_are_known(evaluate):
    assert evaluate("mysql", "__mysql_databases", **neighbours(owner="shop")) == ["shop", "blog"]


@pytest.mark.parametrize(
    ("provider", "installed", "refused"),
    [
        ("mariadb", [], False),
        ("mariadb", ["mariadbd"], False),
        ("mariadb", ["mysqld"], True),
        ("mysql", ["mysqld"], False),
        ("mysql", ["mariadbd"], True),
    ],
)
def test_installed_server_of_the_other_provider_is_rejected(evaluate, provider, installed, refused):
    found = {"files": [{"path": f"/usr/sbin/{name}"} for name in installed]}
    given = {"mysql_provider": provider, "__mysql_servers": found}
    messages = evaluate("mysql", "__mysql_server_problems", **given)
    assert [text.startswith(f"mysql_provider is {provider}: ") for text in messages] == [
        True
    ] * refused
