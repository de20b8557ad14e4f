"""Internal variables of role release, without a host."""

from __future__ import annotations

SECRETS = {
    "app_database_password": "of-the-app",
    "app_migration_password": "of-the-migration",
    "app_secret_environment": {"PIN": 1234567, "EMPTY": ""},
}


def test_health_check_follows_the_settings(evaluate):
    worker = {"name": "worker", "command": "w", "instances": 2}
    nightly = {"name": "nightly", "command": "n", "schedule": "daily"}
    proof = evaluate(
        "release",
        "__release_health",
        app_processes=[worker, nightly],
        release_health_status=204,
        app_domains=["*.shop.example"],
        plan={"release_strategy": "restart"},
    )
    assert proof["services"] == ["shop-worker@1.service", "shop-worker@2.service"]
    assert (proof["timers"], proof["strategy"]) == (["shop-nightly.timer"], "restart")
    assert (proof["health"]["status"], proof["root"]) == (204, "/srv/shop")
    assert proof["health"]["headers"]["Host"] == "www.shop.example"
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


def test_output_is_shown_without_secrets(evaluate):
    lines = ["of-the-migration 1234567", "mysql://u:of-the-app@h"]
    failed = {"failed": True, "item": "false", "stdout_lines": lines, "stderr_lines": ["end"]}
    follow_up = {"results": [{"item": "true"}, failed]}
    known = {"__release": {"id": "two"}, "__release_post_deploy": follow_up}
    shown = evaluate("release", "__release_post_deploy_failure", **known, **SECRETS).splitlines()
    assert shown[0].endswith("app_post_deploy_commands failed: false")
    assert shown[3:] == ["******** ********", "mysql://u:********@h", "end"]
    assert evaluate("release", "__release_post_deploy_failure", **known).splitlines()[3:5] == lines


def test_rollback_warns_of_migrations_that_stay(evaluate):
    known = {"__release_leaving": {"host": "two"}, "__release": {"id": "one"}}
    files = {"files": ["migrations/1.py", "migrations/2.py"]}
    shown = evaluate(
        "release", "__release_migrations_ahead_warning", __release_migrations_ahead=files, **known
    )
    assert shown.splitlines()[1:3] == ["  migrations/1.py", "  migrations/2.py"]


def test_external_database_is_detected_by_its_url(evaluate):
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


def test_batches_are_numbers_and_percentages(evaluate):
    for serial in (1, "2", "50%", [1, "100%"], "100%"):
        assert refused(evaluate, release_serial=serial) == []
    for serial in (0, "", "half", [], [1, "x"]):
        (refusal,) = refused(evaluate, release_serial=serial)
        assert refusal.startswith("release_serial is")


def refused(evaluate, **settings):
    settings = {"app_source_folder": "{{ role_path }}", "app_requirements": "README.md"} | settings
    return evaluate("release", "__release_problems", **settings)


def test_valid_settings_are_accepted(evaluate):
    assert refused(evaluate) == []
    git = {"app_source_folder": "", "app_source_git": "git@example.com:shop.git"}
    assert refused(evaluate, **git) == []


def test_invalid_settings_are_rejected_by_name(evaluate):
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


def test_constraints_are_a_list_or_a_file(evaluate, tmp_path):
    (tmp_path / "pins.txt").write_text("flask==3.1\n")
    for given, pins in (
        (["sqlalchemy>=2.0.31", "flask<3"], "sqlalchemy>=2.0.31\nflask<3"),
        (str(tmp_path / "pins.txt"), "flask==3.1"),
        ([], ""),
    ):
        assert evaluate("release", "__release_build.pins", app_constraints=given) == pins
    for given in ("sqlalchemy>=2.0.31", {"flask": "3"}):
        refused = evaluate("release", "__release_problems", app_constraints=given)
        assert "app_constraints: [flask==3.1.2]" in " ".join(refused)


def test_failure_message_names_the_failed_task(evaluate):
    failed = {"ansible_failed_task": {"name": "Install the Python"}}
    said = evaluate("release", "__release_failure", __release_fleet="one is active on a.", **failed)
    assert said.startswith("one is active on a. ")
    assert said.endswith(": Install the Python")
    assert evaluate("release", "__release_failure", __release_fleet="") == "Nothing was changed."
