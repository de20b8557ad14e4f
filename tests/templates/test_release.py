"""Internal variables of role release, without a host."""

from __future__ import annotations

from helpers import templates

SECRETS = {
    "app_database_password": "of-the-app",
    "app_migration_password": "of-the-migration",
    "app_secret_environment": {"PIN": 1234567, "EMPTY": ""},
}


def test_health_check_follows_the_settings(evaluate):
    worker = {"name": "worker", "command": "w", "instances": 2}
    nightly = {"name": "nightly", "command": "n", "schedule": "daily"}
    release = evaluate(
        "release",
        "__release_health",
        app_processes=[worker, nightly],
        release_health_status=204,
        app_domains=["*.shop.example"],
        plan={"release_strategy": "restart"},
    )
    assert release["services"] == ["shop-worker@1.service", "shop-worker@2.service"]
    assert (release["timers"], release["strategy"]) == (["shop-nightly.timer"], "restart")
    assert (release["health"]["status"], release["root"]) == (204, "/srv/shop")
    assert release["health"]["headers"]["Host"] == "www.shop.example"
    assert evaluate("release", "__release_health")["strategy"] == "switch"


def test_migrations_get_every_database_variable_of_the_app(evaluate):
    environment = {"SQLALCHEMY_DATABASE_URI": "{{ app_database_url }}", "COLOUR": "red"}
    text = evaluate(
        "release", "__release_migrate_environment", app_environment=environment, **SECRETS
    )
    names = [line.split("=", 1) for line in text.splitlines()]
    assert [name for name, _ in names] == ["DATABASE_URL", "SQLALCHEMY_DATABASE_URI"]
    assert all("shop_migrate:of-the-migration@" in value for _, value in names)


def test_migrations_without_a_database_have_no_url(evaluate):
    assert evaluate("release", "__release_migrate_environment", app_migrate_commands=["true"]) == ""


def test_migration_login_has_the_modules_parameters(evaluate):
    assert evaluate("release", "__release_database", **SECRETS) == {
        "host": "",
        "port": 3306,
        "socket": "/run/mysqld/mysqld.sock",
        "ca": "",
        "user": "shop_migrate",
        "password": "of-the-migration",
        "name": "shop",
    }


def problems(**settings):
    settings = {"app_source_folder": "{{ role_path }}", "app_requirements": "README.md"} | settings
    return templates.problems("app", "release", **settings)


URL = {"app_source_folder": "", "app_source_archive": "https://example.com/shop.tar.gz"}
VALID = [
    {},
    {"app_source_folder": "", "app_source_git": "git@example.com:shop.git"},
    *(URL | {"app_source_checksum": value} for value in ("SHA256:0", "9f86d081")),
    *({"release_serial": serial} for serial in ("2", "50%", [1, "100%"])),
]
INVALID = [
    ("app_source_folder is /nowhere", {"app_source_folder": "/nowhere"}),
    ('app_source_folder is ""', {"app_source_folder": ""}),
    ("app_requirements is no.lock", {"app_requirements": "no.lock"}),
    ("app_requirements is []", {"app_requirements": []}),
    ("app_source_checksum", URL),
    ("app_source_checksum is sha257:0", URL | {"app_source_checksum": "sha257:0"}),
    ("app_source_checksum is shake_128:0", URL | {"app_source_checksum": "shake_128:0"}),
    ("app_extras is [x]", {"app_extras": ["x"]}),
    ("app_install_project is true", {"app_install_project": True}),
    ("app_python is 3.1", {"app_python": "3.1"}),
    ("app_index_url is ****", {"app_index_url": "http://me:pw@example.com"}),
    ("app_index_ca is /no.pem", {"app_index_ca": "/no.pem"}),
    ("app_constraints is flask>3", {"app_constraints": "flask>3"}),
    ("app_constraints is {flask: 3}", {"app_constraints": {"flask": "3"}}),
    ("release_keep is 1", {"release_keep": 1}),
    ("release_watch is 601", {"release_watch": 601}),
    ("release_health_timeout is 0", {"release_health_timeout": 0}),
    ("release_warm_up is [/, shop]", {"release_warm_up": ["/", "shop"]}),
    *(("release_serial is", {"release_serial": serial}) for serial in (0, "half", [], [1, "x"])),
]


def test_settings_are_checked():
    for settings in VALID:
        assert problems(**settings) == []
    for message, settings in INVALID:
        (problem,) = problems(**settings)
        assert problem.startswith(message)
        assert "group_vars/all/main.yml" in problem


def test_constraints_are_a_list_or_a_file(evaluate, tmp_path):
    (tmp_path / "pins.txt").write_text("flask==3.1\n")
    for given, pins in (
        (["sqlalchemy>=2.0.31", "flask<3"], "sqlalchemy>=2.0.31\nflask<3"),
        (str(tmp_path / "pins.txt"), "flask==3.1"),
        ([], ""),
    ):
        assert evaluate("release", "__release_build.pins", app_constraints=given) == pins


def test_failure_message_names_the_failed_task(evaluate):
    failed = {"ansible_failed_task": {"name": "Install the Python"}, "ansible_play_hosts_all": []}
    message = evaluate("release", "__release_failure", **failed)
    assert (
        message == "Nothing was changed. The reason is above, where this failed: Install the Python"
    )


def test_the_code_only_deploy_keeps_the_active_settings(evaluate):
    settings = {"__gunicorn_settings": {"current": "old", "name": "new"}}
    for known, name in (
        ({}, ""),
        (settings, "new"),
        (settings | {"deploy_code_only": True}, "old"),
        ({"__gunicorn_settings": {"current": "", "name": "new"}, "deploy_code_only": True}, "new"),
        (settings | {"__release_rollback_settings": "before"}, "before"),
    ):
        assert evaluate("release", "__release_settings_name", **known) == name
