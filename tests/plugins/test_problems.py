"""A message has the variable, its value, the reason, the file and a valid value."""

import pytest
import yaml

from problems import problems, renamed_variables

CHECK = {
    "ok": False,
    "variable": "mysql_wait_timeout",
    "value": 10,
    "reason": "must be longer than app_database_pool_recycle (1800)",
    "example": 3600,
}


def test_message_is_complete():
    assert problems([CHECK], "/etc/site") == [
        "mysql_wait_timeout is 10: must be longer than app_database_pool_recycle (1800). "
        "Set it in /etc/site/group_vars/all/main.yml, for example: mysql_wait_timeout: 3600"
    ]


def test_successful_check_has_no_message():
    assert problems([CHECK | {"ok": True}], "/etc/site") == []


def test_all_problems_are_reported_together():
    assert len(problems([CHECK, CHECK | {"variable": "other"}], "/etc/site")) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '""'),
        (False, "false"),
        (None, "null"),
        (["a.example", "b.example"], "[a.example, b.example]"),
        ([], "[]"),
        ({"url": "/static/", "folder": "static"}, "{url: /static/, folder: static}"),
    ],
)
def test_values_are_yaml(value, text):
    (message,) = problems([CHECK | {"value": value, "example": value}], "/etc/site")
    assert message.startswith(f"mysql_wait_timeout is {text}: ")
    assert message.endswith(f"mysql_wait_timeout: {text}")


def test_message_about_a_secret_has_no_value():
    check = {"ok": False, "variable": "mail_password", "reason": "must not be empty"}
    assert problems([check], "/etc/site") == [
        "mail_password: must not be empty. Set it in /etc/site/group_vars/all/main.yml"
    ]
    values = {"app_database_password": "s3cret", "app_database_user": "root"}
    checks = [{"ok": False, "variable": name, "reason": "is wrong"} for name in values]
    password, user = problems(checks, "/etc/site", values)
    assert password.startswith("app_database_password: is wrong")
    assert user.startswith("app_database_user is root: is wrong")


@pytest.mark.parametrize(
    ("name", "file"), [("app_secret_key", "secret_key"), ("app_cache_password", "cache")]
)
def test_message_about_a_generated_secret_has_a_line_to_paste(name, file, tmp_path):
    (message,) = problems([{"ok": False, "variable": name, "reason": "is no"}], str(tmp_path))
    assert f"Set it in {tmp_path}/group_vars/all/secrets.yml, for example: {name}: " in message
    line = yaml.safe_load(message.partition("for example: ")[2])
    assert f"inventory_dir ~ '/secrets/{file}.txt', length=40" in line[name]


@pytest.mark.parametrize(
    "file", ["group_vars/all/vault.yml", "group_vars/app.yaml", "host_vars/shop-1/x.yml", "h.yml"]
)
def test_message_has_the_file_that_sets_the_variable(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("# mysql_wait_timeout\n  mysql_wait_timeout: 10\n")
    (message,) = problems([CHECK], str(tmp_path))
    assert f"Set it in {tmp_path}/{file}, for example: " in message


def test_remedy_replaces_the_file():
    (message,) = problems([CHECK | {"remedy": "Take a larger host"}], "/etc/site")
    assert message.endswith("(1800). Take a larger host")


def test_check_must_be_boolean():
    with pytest.raises(TypeError, match="mysql_wait_timeout gives 'yes'"):
        problems([CHECK | {"ok": "yes"}], "/etc/site")


def test_renamed_variable_is_rejected_with_its_new_name(tmp_path):
    (tmp_path / "hosts.yml").write_text("shop-1: {old_size: 8}")
    settings = {"old_size": 8, "new_limit": 1}
    renamed = {"old_size": "new_size", "old_limit": "new_limit"}
    assert renamed_variables(settings, renamed, str(tmp_path)) == [
        f"old_size is now new_size. Rename it in {tmp_path}/hosts.yml"
    ]
