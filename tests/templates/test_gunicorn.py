"""Rendered templates of role gunicorn."""

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.repository import ROOT
from processes import active_processes

SECRET = "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"
APP = {"app_wsgi": "shop.web:create_app()", "app_secret_key": SECRET, "app_no_log": True}
PROCESS = {"name": "worker", "command": "rq worker --job 50% default"}
UNITS = "units"


@pytest.fixture
def settings(render):
    """Return `settings(**variables)`, which renders gunicorn.conf.py and returns its settings."""

    def settings(**variables):
        known = {}
        exec(render("gunicorn", "gunicorn.conf.py.j2", **APP | variables), known)
        return known

    return settings


@pytest.fixture
def environment(render, tmp_path):
    """Return `environment(**variables)`, which renders the environment file and parses it."""

    def environment(**variables):
        file = tmp_path / "environment"
        file.write_text(render("gunicorn", "environment.j2", **APP | variables))
        shell = ["env", "-i", "/bin/sh", "-c", f"set -a; . {file}; env -0"]
        output = subprocess.run(shell, text=True, capture_output=True, check=True).stdout
        return dict(line.split("=", 1) for line in output.split("\0") if line)

    return environment


def test_previous_session_key_is_a_fallback(environment):
    assert "SECRET_KEY_FALLBACKS" not in environment()
    variables = environment(app_secret_key_previous='the "old" key')
    assert variables["SECRET_KEY"] == APP["app_secret_key"]
    assert json.loads(variables["SECRET_KEY_FALLBACKS"]) == ['the "old" key']


def test_next_session_key_is_a_fallback_before_it_signs(environment):
    variables = environment(__gunicorn_secret_keys=["old", "new"])
    assert (variables["SECRET_KEY"], variables["SECRET_KEY_FALLBACKS"]) == ("old", '["new"]')


def test_settings_come_from_the_plan(settings):
    plan = {"gunicorn_workers": 5, "gunicorn_threads": 3, "gunicorn_timeout": 20}
    got = settings(plan=plan | {"gunicorn_graceful_timeout": 21})
    assert (got["workers"], got["threads"], got["worker_connections"]) == (5, 3, 3)
    assert (got["timeout"], got["graceful_timeout"]) == (20, 21)


def test_settings_without_a_plan(settings):
    got = settings()
    assert got["wsgi_app"] == "shop.web:create_app()"
    assert got["worker_tmp_dir"] == "/dev/shm"
    assert got["control_socket_disable"] is True
    assert got["preload_app"] is False
    assert "max_requests" not in got


def test_gunicorn_settings_are_valid_python(settings):
    own = {"limit_request_line": 100, "sendfile": False, "proc_name": "it's", "statsd_host": None}
    got = settings(gunicorn_settings=own)
    assert {name: got[name] for name in own} == own


def test_worker_class_without_threads(settings):
    assert "threads" not in settings(gunicorn_worker_class="sync")


def test_environment_of_an_app_without_database_or_redis(environment):
    got = environment()
    assert not {"DATABASE_URL", "CACHE_URL", "QUEUE_URL"} & set(got)
    assert got["SECRET_KEY"] == SECRET
    assert got["APP_PREFIX"] == ""
    assert got["MAX_CONTENT_LENGTH"] == str(10 * 2**20)


def test_rq_redis_url_is_the_queue_url(environment):
    got = environment(app_queue_password="a password of 20 letters")
    assert got["RQ_REDIS_URL"] == got["QUEUE_URL"]
    assert "RQ_REDIS_URL" not in environment()


def test_gauges_of_an_exited_worker_are_removed(render, tmp_path, monkeypatch):
    unit = render("gunicorn", f"{UNITS}/web@.service.j2", **APP)
    assert "RuntimeDirectory=shop/metrics-%i\n" in unit, "systemd empties it at each start"
    assert "Environment=PROMETHEUS_MULTIPROC_DIR=/run/shop/metrics-%i\n" in unit
    kept = {"counter_7.db", "gauge_livesum_17.db", "gauge_max_7.db"}
    files = [*kept, "gauge_all_7.db", "gauge_livesum_7.db"]
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    hooks = {}
    exec(render("gunicorn", "gunicorn.conf.py.j2", **APP), hooks)
    hooks["child_exit"](None, SimpleNamespace(pid=7, continues=None))
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_database_host_adds_variables_for_each_part(environment, evaluate):
    address = {"app_database_password": "pass", "app_database_host": "127.0.0.1"}
    got = environment(**address)
    assert got["DATABASE_URL"].startswith("mysql+pymysql://shop:pass@127.0.0.1:3306/shop?")
    assert "ssl" not in got["DATABASE_URL"]
    parts = {name: got[f"DB_{name}"] for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME")}
    assert list(parts.values()) == ["127.0.0.1", "3306", "shop", "pass", "shop"]
    changed = evaluate("gunicorn", "__gunicorn_background", **APP, **address)
    assert changed.pop("DATABASE_URL") == got["DATABASE_URL"].replace("shop:", "shop_jobs:")
    assert changed == {"DB_USER": "shop_jobs"}
    elsewhere = {"groups": {"app": ["host"]}}  # no database in the inventory, so no such account
    assert evaluate("gunicorn", "__gunicorn_background", **APP, **address, **elsewhere) == {}
    login = {"app_migration_password": "other"}
    lines = evaluate("release", "__release_migrate_environment", **address, **login).splitlines()
    assert {"DB_USER=shop_migrate", "DB_PASSWORD=other"} < set(lines)


def test_environment_variables_are_added_and_overridden(environment):
    got = environment(
        app_database_password="pass",
        app_environment={"SQLALCHEMY_DATABASE_URI": "{{ app_database_url }}", "APP_ENV": "staging"},
        app_secret_environment={"TOKEN": 'a"b$c'},
    )
    assert got["DATABASE_URL"].startswith("mysql+pymysql://shop:pass@/shop?")
    assert got["SQLALCHEMY_DATABASE_URI"] == got["DATABASE_URL"]
    assert got["APP_ENV"] == "staging"
    assert got["TOKEN"] == 'a"b$c'


def memory(unit):
    """Return the memory and OOM options of a unit."""
    lines = [
        line.split("=", 1)
        for line in unit.splitlines()
        if re.match("Memory(High|Max|Swap)|OOM", line)
    ]
    return dict(lines)


def test_units_have_the_memory_limits_of_the_plan(render):
    variables = APP | {"plan": {"gunicorn_memory_limit": 520}}
    slice_, web = (
        memory(render("gunicorn", f"{UNITS}/{name}.j2", **variables))
        for name in ("app.slice", "web@.service")
    )
    assert slice_ == {"MemoryHigh": "504M", "MemoryMax": "520M", "MemorySwapMax": "260M"}
    web_swap = {"MemorySwapMax": "130M", "OOMPolicy": "continue", "OOMScoreAdjust": "300"}
    assert web == slice_ | web_swap
    assert memory(render("gunicorn", f"{UNITS}/app.slice.j2", **APP)) == {}


def test_units_restart_without_limit_and_find_processes_that_hang(render):
    process = {"process": active_processes([PROCESS | {"watchdog": 120}])[0]}
    for name, watchdog in (("web@", 60), ("process@", 120)):
        lines = render("gunicorn", f"{UNITS}/{name}.service.j2", **APP, **process).splitlines()
        assert {"Restart=always", "StartLimitIntervalSec=0", f"WatchdogSec={watchdog}"} < set(lines)
        # RestartSteps= would delay each restart after the first few, months later too.
        assert not [line for line in lines if line.startswith("RestartSteps")]


def test_oom_scores_order_workers_first_and_database_last(render):
    database = Path(ROOT, "roles/mysql/files/etc/systemd/system/mysql.service.d/flaskstack.conf")
    redis = render(
        "redis", "etc/systemd/system/redis-server@.service.d/flaskstack.conf.j2", item="queue"
    )
    process = {"process": active_processes([PROCESS])[0]}
    process_unit = render("gunicorn", f"{UNITS}/process@.service.j2", **APP, **process)
    web = render("gunicorn", f"{UNITS}/web@.service.j2", **APP)
    units = [database.read_text(), redis, web, process_unit]
    scores = [int(memory(unit)["OOMScoreAdjust"]) for unit in units]
    worker = re.search(r'write_text\("(\d+)"', render("gunicorn", "gunicorn.conf.py.j2", **APP))
    assert scores == sorted(scores)
    assert scores[0] < scores[1] < 0 < scores[-1] < int(worker[1])


def test_redis_group_only_on_redis_hosts(render):
    web = f"{UNITS}/web@.service.j2"
    assert "SupplementaryGroups=shop-redis" in render("gunicorn", web, **APP)
    assert "SupplementaryGroups" not in render("gunicorn", web, **APP, group_names=["app"])


def test_sandbox_exceptions_have_their_reasons_as_comments(render):
    loose = {
        "MemoryDenyWriteExecute": {"value": False, "reason": "numba compiles\nas it runs"},
        "RestrictAddressFamilies": {
            "value": ["AF_NETLINK", "AF_PACKET"],
            "reason": "a network map",
        },
    }
    unit = render("gunicorn", f"{UNITS}/web@.service.j2", **APP, gunicorn_sandbox_exceptions=loose)
    rules, exceptions = unit.split("# Exceptions of this app.")
    assert "\nMemoryDenyWriteExecute=yes\n" in rules
    assert "\n# numba compiles as it runs\nMemoryDenyWriteExecute=no\n" in exceptions
    families = "RestrictAddressFamilies=AF_NETLINK\nRestrictAddressFamilies=AF_PACKET"
    assert f"\n# a network map\n{families}\n" in exceptions


def test_sandbox_without_exceptions(render):
    unit = render("gunicorn", f"{UNITS}/web@.service.j2", **APP)
    assert "Exceptions" not in unit
    assert "\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n" in unit
    assert "\nReadWritePaths=/srv/shop/shared\n" in unit
    assert "LimitNOFILE" not in unit


def test_writable_paths_are_writable_in_the_sandbox(render):
    paths = {
        "app_writable_paths": ["exports", "/var/spool/shop/"],
        "app_instance_path": "/srv/data/i",
    }
    unit = render("gunicorn", f"{UNITS}/web@.service.j2", **APP, **paths)
    opened = [line.split("=", 1)[1] for line in unit.splitlines() if "ReadWritePaths" in line]
    assert opened == ["/srv/shop/shared", "-/var/spool/shop", "-/srv/data/i"]


def test_gevent_sets_connections_and_open_files(settings, render):
    gevent = {"gunicorn_worker_class": "gevent", "gunicorn_worker_connections": 2000}
    got = settings(**gevent)
    assert (got["worker_class"], got["worker_connections"]) == ("gevent", 2000)
    assert "threads" not in got
    unit = render("gunicorn", f"{UNITS}/web@.service.j2", **APP, **gevent)
    assert "\nLimitNOFILE=5024\n" in unit


@pytest.mark.parametrize(("preload", "patched"), [(False, False), (True, True)])
def test_preload_with_gevent_patches_before_the_import(render, preload, patched):
    variables = {"gunicorn_worker_class": "gevent", "gunicorn_preload": preload}
    text = render("gunicorn", "gunicorn.conf.py.j2", **APP, **variables)
    assert ("monkey.patch_all()" in text.partition("chdir")[0]) == patched


def test_release_links(evaluate):
    links = evaluate(
        "gunicorn",
        "__app_paths.links",
        app_shared_paths=["uploads/", "var/media"],
        app_shared_files=["shop.db", "keys/jwt.pem"],
        app_instance_path="instance",
        app_files=[
            {"template": "a.j2", "dest": "shop/local.py"},
            {"template": "b.j2", "dest": "/etc/shop/b"},
        ],
    )
    assert links == {
        "uploads": "/srv/shop/shared/uploads",
        "var/media": "/srv/shop/shared/var/media",
        "instance": "/srv/shop/shared/instance",
        "shop.db": "/srv/shop/shared/files/shop.db",
        "keys/jwt.pem": "/srv/shop/shared/files/keys/jwt.pem",
        "shop/local.py": "/etc/shop/files/shop/local.py",
    }


def test_shared_and_writable_folders(evaluate):
    variables = {"app_shared_paths": ["uploads"], "app_shared_files": ["shop.db", "keys/jwt.pem"]}
    variables |= {"app_writable_paths": ["exports", "/var/spool/shop"], "app_instance_path": "i"}
    folders = evaluate("gunicorn", "__app_shared_folders", **variables)
    below = ["exports", "files", "files/keys", "i", "uploads"]
    assert folders == [f"/srv/shop/shared/{name}" for name in below]
    assert evaluate("gunicorn", "__app_writable_folders", **variables) == ["/var/spool/shop"]


@pytest.mark.parametrize(
    ("path", "value"),
    [("", None), ("instance", "/srv/shop/shared/instance"), ("/srv/data/i/", "/srv/data/i")],
)
def test_instance_path_is_in_the_environment(environment, path, value):
    assert environment(app_instance_path=path).get("FLASK_INSTANCE_PATH") == value


def test_flask_app_defaults_to_the_wsgi_target(environment):
    assert environment()["FLASK_APP"] == "shop.web:create_app()"
    assert environment(app_environment={"FLASK_APP": "cli"})["FLASK_APP"] == "cli"


def test_database_url_has_the_options(environment):
    got = environment(
        app_database_password=SECRET,
        app_database_charset="",
        app_database_options={"init_command": "SET time_zone='UTC'", "local_infile": False},
    )
    query = got["DATABASE_URL"].partition("?")[2]
    assert query == (
        "unix_socket=/run/mysqld/mysqld.sock&init_command=SET+time_zone='UTC'&local_infile=false"
    )
