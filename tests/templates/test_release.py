"""What the release's own variables say, without a host."""

from __future__ import annotations

SECRETS = {
    "app_database_password": "of-the-app",
    "app_migration_password": "of-the-migration",
    "app_secret_environment": {"PIN": 1234567, "EMPTY": ""},
}


def test_every_instance_of_every_process_must_run(evaluate):
    processes = [
        {"name": "worker", "command": "w", "instances": 2},
        {"name": "clock", "command": "c"},
        {"name": "idle", "command": "i", "instances": 0},
    ]
    assert evaluate("release", "__release_units", app_processes=processes) == [
        "shop-worker@1.service",
        "shop-worker@2.service",
        "shop-clock@1.service",
    ]
    assert evaluate("release", "__release_units") == []


def test_migrations_know_the_database_by_every_name_the_app_has_for_it(evaluate):
    environment = {"SQLALCHEMY_DATABASE_URI": "{{ app_database_url }}", "COLOUR": "red"}
    text = evaluate(
        "release", "__release_migrate_environment", app_environment=environment, **SECRETS
    )
    names = [line.split("=", 1) for line in text.splitlines()]
    assert [name for name, _ in names] == ["DATABASE_URL", "SQLALCHEMY_DATABASE_URI"]
    assert all("shop_migrate:of-the-migration@" in value for _, value in names)


def test_an_app_without_a_database_migrates_without_its_address(evaluate):
    assert evaluate("release", "__release_migrate_environment", app_migrate_commands=["true"]) == ""


def migration_failure(evaluate, migration, **settings):
    fleet = {"__release": {"id": "two"}, "ansible_play_hosts_all": ["host"]}
    state = {"__release_state": {"current": "one"}}
    return evaluate(
        "release",
        "__release_migration_failure",
        __release_migration=migration,
        hostvars={"host": state},
        **fleet,
        **settings,
    )


def test_output_is_shown_without_secrets(evaluate):
    migration = {
        "msg": "app_migrate_commands failed with code 1 (false)",
        "output": ["of-the-migration 1234567 mysql://u:of-the-app@h"],
        "dump_file": "/var/backups/shop/1.sql.gz",
    }
    assert migration_failure(evaluate, migration, **SECRETS).splitlines() == [
        "two is not in use: app_migrate_commands failed with code 1 (false).",
        "Its last output:",
        "******** ******** mysql://u:********@h",
        "The database as it was: /var/backups/shop/1.sql.gz",
        "one serves on host.",
    ]


def test_output_is_shown_as_it_is_when_nothing_is_secret(evaluate):
    shown = migration_failure(evaluate, {"msg": "as it is", "output": [], "dump_file": ""})
    assert shown.splitlines() == ["two is not in use: as it is", "one serves on host."]


def test_a_database_of_the_apps_own_elsewhere_is_known_by_its_address(evaluate):
    environment = {
        "SAME": "{{ app_database_url }}",
        "OTHER_URL": "postgresql+psycopg://u@db/x",
        "FILE": "sqlite:////srv/shop/shared/app.db",
        "NUMBER": 5,
    }
    found = evaluate(
        "release", "__release_foreign_databases", app_environment=environment, **SECRETS
    )
    assert found == ["OTHER_URL"]


def test_the_login_of_migrations_is_what_the_module_takes(evaluate):
    assert evaluate("release", "__release_database", **SECRETS) == {
        "host": "",
        "port": 3306,
        "socket": "/run/mysqld/mysqld.sock",
        "ca": "",
        "user": "shop_migrate",
        "password": "of-the-migration",
        "name": "shop",
    }


def test_batches_are_numbers_and_percentages(evaluate):
    for serial in (1, "2", "50%", [1, "100%"], "100%"):
        assert refused(evaluate, release_serial=serial) == []
    for serial in (0, "", "half", [], [1, "x"]):
        (refusal,) = refused(evaluate, release_serial=serial)
        assert refusal.startswith("release_serial is")


def refused(evaluate, **settings):
    settings = {"app_source_folder": "{{ role_path }}", "app_requirements": "README.md"} | settings
    return evaluate("release", "__release_refusals", **settings)


def test_settings_that_can_work_are_not_refused(evaluate):
    assert refused(evaluate) == []
    git = {"app_source_folder": "", "app_source_git": "git@example.com:shop.git"}
    assert refused(evaluate, **git) == []


def test_settings_that_cannot_work_are_refused_by_name(evaluate):
    url = {"app_source_folder": "", "app_source_archive": "https://example.com/shop.tar.gz"}
    for name, settings in {
        "app_source_folder is /nowhere": {"app_source_folder": "/nowhere"},
        'app_source_folder is ""': {"app_source_folder": ""},
        "app_requirements is no.lock": {"app_requirements": "no.lock"},
        "app_source_checksum": url,
        "release_keep is 1": {"release_keep": 1},
        "release_health_timeout is 0": {"release_health_timeout": 0},
        "release_warm_up is [/, shop]": {"release_warm_up": ["/", "shop"]},
    }.items():
        (refusal,) = refused(evaluate, **settings)
        assert refusal.startswith(name), refusal
        assert "group_vars/all/main.yml" in refusal
