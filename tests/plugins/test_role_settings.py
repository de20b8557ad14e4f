"""Messages about variables that contradict the argument specs of the roles."""

from __future__ import annotations

import pytest

from helpers.templates import problems, typed_settings

VALID = {"app_wsgi": "shop:app", "app_secret_key": "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"}


def messages(**variables):
    """Return the messages of roles app and gunicorn."""
    return problems("app", "gunicorn", **VALID | {"app_domains": ["shop.example"]} | variables)


@pytest.mark.parametrize(
    ("variables", "subject", "reason", "example"),
    [
        (
            {"gunicorn_log_level": "loud"},
            "gunicorn_log_level is loud",
            "must be one of debug, info, warning, error, critical",
            "gunicorn_log_level: info",
        ),
        (
            {"gunicorn_threads": "many"},
            "gunicorn_threads is many",
            "must be of type int",
            "gunicorn_threads: 4",
        ),
        ({"app_environment": 5}, "app_environment is 5", "must be of type dict", "{}"),
        ({"app_domains": None}, "app_domains is null", "must be of type list", "app_domains: []"),
        (
            {"app_secret_environment": "TOKEN: pA8x"},
            "app_secret_environment",
            "must be of type dict",
            "{}",
        ),
        ({"host_memory": "all"}, "host_memory is all", "must be of type int", "host_memory: 1"),
        (
            {"app_limited_paths": [{"path": "/login"}]},
            "app_limited_paths is [{path: /login}]",
            "missing required arguments: per_minute found in app_limited_paths",
            "app_limited_paths: [{path: …, per_minute: 1}]",
        ),
        (
            {"app_processes": [{"name": "a", "command": "b", "instance": 2}]},
            "app_processes is [{name: a, command: b, instance: 2}]",
            "app_processes.instance. Supported parameters include: catch_up, command,",
            "app_processes: [{name: …, command: …}]",
        ),
        (
            {"app_user": "{{ shop_user }}"},
            "app_user",
            "cannot be evaluated: 'shop_user' is undefined",
            "",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_value_that_contradicts_the_spec(variables, subject, reason, example):
    (message,) = messages(**variables)
    assert message.startswith(f"{subject}: {reason}")
    assert "Set it in " in message
    assert message.endswith(example)
    assert "pA8x" not in message


def test_missing_variable_is_the_only_message():
    """Other variables often use the missing one, such as app_name, and would fail too."""
    (message,) = problems("lockout_guard", lockout_guard_timeout="long")
    assert message.startswith("lockout_guard_name: must be set. Set it in ")


def test_valid_settings_have_no_messages():
    assert messages() == []


def test_checks_get_values_of_the_types_in_the_spec():
    """Values from the command line are text."""
    assert messages(app_upload_size="20", app_https="false", gunicorn_workers="3") == []
    (message,) = messages(app_upload_size="0")
    assert message.startswith("app_upload_size is 0: ")


def test_suboptions_without_a_value_stay_absent():
    static = [{"url": "/static/", "folder": "static"}]
    (entry,) = typed_settings("app", app_static=static)["app_static"]
    assert entry == static[0] | {"shared": False}
