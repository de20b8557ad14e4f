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
        "shop-web@a.service",
        "shop-worker@1.service",
        "shop-worker@2.service",
        "shop-clock@1.service",
    ]
    assert evaluate("release", "__release_units") == ["shop-web@a.service"]


def test_migrations_know_the_database_by_every_name_the_app_has_for_it(evaluate):
    environment = {"SQLALCHEMY_DATABASE_URI": "{{ app_database_url }}", "COLOUR": "red"}
    text = evaluate(
        "release", "__release_migrate_environment", app_environment=environment, **SECRETS
    )
    names = [line.split("=", 1) for line in text.splitlines()]
    assert [name for name, _ in names] == ["DATABASE_URL", "SQLALCHEMY_DATABASE_URI"]
    assert all("shop_migrate:of-the-migration@" in value for _, value in names)


def test_an_app_without_a_database_migrates_without_its_address(evaluate):
    assert evaluate("release", "__release_migrate_environment", app_migrate_command="true") == ""


def test_output_is_shown_without_secrets(evaluate):
    migration = {
        "stdout_lines": ["line"] * 30,
        "stderr_lines": ["of-the-migration 1234567 mysql://u:of-the-app@h"],
    }
    shown = evaluate(
        "release", "__release_migration_output", __release_migration=migration, **SECRETS
    )
    assert shown.splitlines() == ["line"] * 19 + ["******** ******** mysql://u:********@h"]


def test_output_is_shown_as_it_is_when_nothing_is_secret(evaluate):
    migration = {"stdout_lines": ["as it is"], "stderr_lines": []}
    shown = evaluate("release", "__release_migration_output", __release_migration=migration)
    assert shown == "as it is"


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
    }.items():
        (refusal,) = refused(evaluate, **settings)
        assert refusal.startswith(name), refusal
        assert "group_vars/all/main.yml" in refusal
