"""Settings of roles app and gunicorn that are rejected, with their messages."""

from __future__ import annotations

import pytest

from app_checks import RANGES, app_checks
from gunicorn_checks import gunicorn_checks, schedule_checks
from helpers.repository import ROOT
from helpers.templates import typed_settings
from problems import problems
from processes import USUAL

INVENTORY = str(ROOT / "inventory/local")
SECRET = "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"
WORKER = USUAL | {"name": "worker", "command": "rq worker --job 50% default"}
NIGHTLY = WORKER | {"name": "nightly", "schedule": "*-*-* 03:30"}


@pytest.fixture(scope="module")
def messages():
    """Return a function that returns the messages about changed settings of a valid app."""
    valid = typed_settings("app", "gunicorn", app_wsgi="shop.web:create_app()")
    valid["app_secret_key"] = SECRET

    def messages(**changes):
        settings = valid | changes
        checks = app_checks(settings, INVENTORY, ["host"]) + gunicorn_checks(settings)
        return problems(checks, INVENTORY)

    return messages


ACCEPTED = [
    {},
    {"app_environment": {"FLASK_DEBUG": "0", "DEBUG": False}},
    {"app_prefix": "/shop/eu"},
    {"app_processes": [WORKER | {"command": "flask rq worker"}]},
    {"app_processes": [WORKER | {"command": "python -m shop.run"}]},
    {"app_processes": [WORKER | {"command": "python app.py"}]},
    {"app_processes": [WORKER | {"command": "python bot/app.py"}], "app_wsgi": "app:app"},
    {"app_processes": [NIGHTLY, WORKER | {"memory_limit": 16, "instances": 0}]},
    {"app_wsgi": "shop:create_app('prod', debug=False)"},
    {"app_wsgi": "shop:main_app"},
    {"gunicorn_worker_class": "gthread", "app_streaming_paths": ["/events"]},
    {"app_database_password": "aZ09.,:_~-"},
    {"app_shared_paths": ["up"], "app_shared_files": ["uploads.db"], "app_instance_path": "i"},
    {"app_writable_paths": ["a/b", "/srv/data/shop", "/var/spool/shop", "/srv/shop/shared/x"]},
    {"app_files": [{"template": "hosts.yml", "dest": "/etc/shop/x"}]},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_valid_settings_are_accepted(messages, changes):
    assert messages(**changes) == []


def files(*dests, template="hosts.yml"):
    """Return app_files with these destinations."""
    return {"app_files": [{"template": template, "dest": dest} for dest in dests]}


def process(**options):
    """Return app_processes with a valid process and one with these options."""
    return {"app_processes": [WORKER | {"name": "other"}, WORKER | options]}


NAMES = "must have names of lower-case letters"
SERVER = "must not run a development server"
DEBUG = "must not enable debug mode"
DEST = "must have a dest inside the release"
REJECTED = [
    ({"app_name": "9shop"}, "app_name is 9shop: must be a lower-case letter"),
    ({"app_name": "mysql"}, "app_name is mysql: must be a lower-case letter"),
    ({"app_user": "root"}, "app_user is root: must be a user that only this app has"),
    ({"app_user": "shop-build"}, "app_user is shop-build: must be a user"),
    ({"app_root": "/home/deploy/shop"}, "app_root is /home/deploy/shop: must be a folder"),
    ({"app_env": "Development"}, "app_env is Development: must not be a development"),
    ({"app_environment": {"FLASK_DEBUG": "1"}}, f"app_environment: {DEBUG}"),
    ({"app_secret_environment": {"DEBUG": True}}, f"app_environment: {DEBUG}"),
    (process(environment={"DEBUG": 1}), f"app_environment: {DEBUG}"),
    ({"app_environment": {"FLASK_ENV": "development"}}, f"app_environment: {DEBUG}"),
    ({"app_environment": {"NO-NAME": "x"}}, "app_environment is [NO-NAME]: and app_build_"),
    ({"app_build_environment": {"A B": 1}}, "app_environment is [A B]: and app_build_"),
    ({"app_secret_environment": {"KEY": "two\nlines"}}, "app_environment is [KEY]: and"),
    ({"app_environment": {"SECRET_KEY": "dev"}}, "app_environment: must not set SECRET_KEY"),
    ({"app_prefix": "shop"}, "app_prefix is shop: must be empty, or begin"),
    ({"app_prefix": "/shop/"}, "app_prefix is /shop/: must be empty, or begin"),
    ({"app_health_path": "healthz"}, "app_health_path is healthz: must be a URL path"),
    ({"app_metrics_path": "metrics"}, "app_metrics_path is metrics: must be a URL path"),
    ({"app_metrics_path": "/a/"}, "app_metrics_path is /a/: must be a URL path"),
    ({"app_metrics_path": "/healthz"}, "app_metrics_path is /healthz: must be a URL path"),
    ({"app_health_path": "/gesünd"}, "app_health_path is /gesünd: must be a URL path"),
    ({"app_domains": ["*.München.example."]}, "app_domains is [*.München.example.]: must be"),
    ({"app_request_timeout": 4}, "request_timeout is 4: must be 5 seconds"),
    (
        {"app_proxy_fix": True, "app_trusted_proxy_hops": 0},
        "app_trusted_proxy_hops is 0: must be 1 or more",
    ),
    (process(name="web"), f"app_processes is [web]: {NAMES}"),
    (process(name="backup"), f"app_processes is [backup]: {NAMES}"),
    (process(name="worker\n"), f"app_processes is [worker\n]: {NAMES}"),
    (process(name="other"), f"app_processes is [other, other]: {NAMES}"),
    (process(command="rq worker\nUser=root"), "app_processes is [worker]: must have a command"),
    (process(command="flask --app shop run"), f"app_processes is [flask --app shop run]: {SERVER}"),
    (
        process(command="python -m flask run -p 80"),
        f"app_processes is [python -m flask run -p 80]: {SERVER}",
    ),
    (process(command="manage.py runserver"), f"app_processes is [manage.py runserver]: {SERVER}"),
    (process(command="python3 shop/web.py"), f"app_processes is [python3 shop/web.py]: {SERVER}"),
    (process(command="python -m shop.web"), f"app_processes is [python -m shop.web]: {SERVER}"),
    (process(instances=-1), "app_processes: must have, for worker, instances of 0"),
    (process(stop_timeout=0), "app_processes: must have, for worker, a stop_timeout"),
    (process(watchdog=5), "app_processes: must have, for worker, a watchdog of 10 seconds or more"),
    (
        process(watchdog=60, schedule="daily"),
        "app_processes: must have, for worker, no watchdog, since it has a schedule",
    ),
    (process(random_delay=-1), "app_processes: must have, for worker, a random_delay"),
    (process(memory_limit=2), "app_processes: must have, for worker, a memory_limit"),
    (process(schedule="daily", instances=2), "app_processes: must have, for worker, no more than"),
    (process(schedule="30 3 * * *"), "app_processes is [30 3 * * *]: must have schedules"),
    ({"app_singleton_host": "gone"}, "app_singleton_host is gone: must be a host of group app"),
    ({"app_shared_paths": ["../x"]}, "app_shared_paths is [../x]: must be folders inside"),
    ({"app_shared_paths": [".venv"]}, "app_shared_paths is [.venv]: must be folders inside"),
    ({"app_static": [{"folder": "/etc"}]}, "app_shared_paths is [/etc]: must be folders inside"),
    ({"app_shared_files": ["/shop.db"]}, "app_shared_files is [/shop.db]: and app_instance_path"),
    ({"app_instance_path": ".venv/var"}, "app_shared_files is [.venv/var]: and app_instance"),
    (files("../b"), "app_shared_files is [../b]: and app_instance_path"),
    (
        {"app_shared_paths": ["data"], "app_shared_files": ["data/shop.db"]},
        "app_shared_files is [data/shop.db]: must be named once",
    ),
    (
        {"app_shared_paths": ["files"], "app_shared_files": ["shop.db"]},
        "app_shared_paths is [files]: must not contain files",
    ),
    (files("/etc/shop/../x"), f"app_files is [/etc/x]: {DEST}"),
    (files("/etc/shopping"), f"app_files is [/etc/shopping]: {DEST}"),
    (files("/etc/shop/environment"), f"app_files is [/etc/shop/environment]: {DEST}"),
    (files("local.py", template="none"), f"app_files is [{INVENTORY}/none]: must have templates"),
    ({"app_writable_paths": ["../x"]}, "app_writable_paths is [../x]: must be folders below"),
    ({"app_writable_paths": ["/var/log"]}, "app_writable_paths is [/var/log]: and app_instance_"),
    ({"app_instance_path": "/srv/shop/shared"}, "app_writable_paths is [/srv/shop/shared]: and"),
    *(
        ({"app_readable_paths": [path]}, f"app_readable_paths is [{path}]: must be absolute")
        for path in ("films", "/", "/srv/a b", "/root/../etc", "/home/x")
    ),
    ({"app_queue_password": "50%"}, "app_queue_password: must consist of letters"),
    ({"app_database_charset": "utf8;"}, "app_database_charset is utf8;: must be a character set"),
    ({"app_database_options": {"a": "b", "c": "d&e"}}, "app_database_options is [c]: must not"),
    ({"app_network": ["internet", "everything"]}, "app_network is [everything]: must contain"),
    *(
        ({"app_wsgi": wsgi}, f"app_wsgi is {wsgi}: must be what Gunicorn serves")
        for wsgi in ("app.run", "app:run", "app:run()", "flask run")
    ),
    ({"app_wsgi": None}, 'app_wsgi is "": must be what Gunicorn serves'),
    *(
        ({"app_secret_key": key}, "app_secret_key: must be random")
        for key in ("", "short-but-random-8fj2", "change-me-" * 4, "a" * 64)
    ),
    ({"gunicorn_settings": {"reload": True}}, "gunicorn_settings is [reload]: must not contain"),
    ({"gunicorn_settings": {"--x": True}}, "gunicorn_settings is [--x]: must have Gunicorn's"),
    (
        {"gunicorn_worker_class": "sync", "app_websocket_paths": ["/ws"]},
        "gunicorn_worker_class is sync: must be gevent",
    ),
    (
        {"gunicorn_sandbox_exceptions": {"UMask": "0077"}},
        "gunicorn_sandbox_exceptions is [UMask]: must have",
    ),
    ({"gunicorn_workers": 0}, "gunicorn_workers is 0: must be a whole number of processes from 1"),
    ({"gunicorn_graceful_timeout": 29}, "gunicorn_graceful_timeout is 29: must not be below"),
    ({"gunicorn_stop_timeout": 30}, "gunicorn_stop_timeout is 30: must be longer than"),
    ({"gunicorn_watchdog": 5}, "gunicorn_watchdog is 5: must be 10 seconds or more, or 0"),
]


@pytest.mark.parametrize(("changes", "message"), REJECTED, ids=str)
def test_invalid_settings_are_rejected(messages, changes, message):
    (found,) = messages(**changes)
    assert found.startswith(message)
    assert "/group_vars/all/" in found


@pytest.mark.parametrize("name", RANGES)
def test_numbers_have_ranges(messages, name):
    least, most, _unit = RANGES[name]
    for value, count in ((least - 1, 1), (least, 0), (most, 0), (most + 1, 1)):
        assert len(messages(**{name: value})) == count


@pytest.mark.parametrize(
    ("output", "rejected"),
    [
        ("    Next elapse: Sat 2026-11-21 03:30:00 UTC", False),
        ("    Next elapse: never", True),
        ("", True),
    ],
)
def test_schedule_needs_a_next_run(output, rejected):
    (found,) = schedule_checks([{"item": NIGHTLY, "stdout": output}])
    assert found["ok"] is not rejected
