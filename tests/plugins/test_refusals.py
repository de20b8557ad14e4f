"""A refusal names the variable, its value, the reason, the file and a value that works."""

import pytest

from refusals import refusals

CHECK = {
    "ok": False,
    "variable": "mysql_wait_timeout",
    "value": 10,
    "reason": "must be longer than app_database_pool_recycle (1800)",
    "example": 3600,
}


def test_message_says_everything():
    assert refusals([CHECK], "/etc/site") == [
        "mysql_wait_timeout is 10: must be longer than app_database_pool_recycle (1800). "
        "Set it in /etc/site/group_vars/all/main.yml, for example: mysql_wait_timeout: 3600"
    ]


def test_what_is_ok_is_silent():
    assert refusals([CHECK | {"ok": True}], "/etc/site") == []


def test_all_problems_at_once():
    assert len(refusals([CHECK, CHECK | {"variable": "other"}], "/etc/site")) == 2


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
def test_values_are_written_as_in_yaml(value, text):
    (message,) = refusals([CHECK | {"value": value, "example": value}], "/etc/site")
    assert message.startswith(f"mysql_wait_timeout is {text}: ")
    assert message.endswith(f"mysql_wait_timeout: {text}")


def test_a_secret_without_value_is_only_named():
    check = {"ok": False, "variable": "app_secret_key", "reason": "must not be empty"}
    assert refusals([check], "/etc/site") == [
        "app_secret_key: must not be empty. Set it in /etc/site/group_vars/all/main.yml"
    ]


def test_a_remedy_replaces_the_file():
    (message,) = refusals([CHECK | {"remedy": "Take a larger host"}], "/etc/site")
    assert message.endswith("(1800). Take a larger host")


def test_a_check_that_is_no_condition_is_a_mistake():
    with pytest.raises(TypeError, match="mysql_wait_timeout gives 'yes'"):
        refusals([CHECK | {"ok": "yes"}], "/etc/site")
