"""What role gunicorn writes, and what roles app and gunicorn refuse."""

import ast
import subprocess

import pytest

SECRET = "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"
APP = {"app_wsgi": "shop.web:create_app()", "app_secret_key": SECRET, "app_no_log": True}
PROCESS = {"name": "worker", "command": "rq worker --job 50% default"}
UNITS = "etc/systemd/system"


@pytest.fixture
def settings(render):
    """Give `settings(**variables)`: the settings of the rendered gunicorn.conf.py."""

    def settings(**variables):
        tree = ast.parse(render("gunicorn", "etc/app/gunicorn.conf.py.j2", **APP | variables))
        assignments = [node for node in tree.body if isinstance(node, ast.Assign)]
        known = {}
        for node in assignments:
            value = node.value
            known[node.targets[0].id] = (
                known[value.id] if isinstance(value, ast.Name) else ast.literal_eval(value)
            )
        return known

    return settings


@pytest.fixture
def environment(render, tmp_path):
    """Give `environment(**variables)`: the environment file, as a shell reads it."""

    def environment(**variables):
        file = tmp_path / "environment"
        file.write_text(render("gunicorn", "etc/app/environment.j2", **APP | variables))
        shell = ["env", "-i", "/bin/sh", "-c", f"set -a; . {file}; env -0"]
        told = subprocess.run(shell, text=True, capture_output=True, check=True).stdout
        return dict(line.split("=", 1) for line in told.split("\0") if line)

    return environment


def test_settings_come_from_the_plan(settings):
    plan = {"gunicorn_workers": 5, "gunicorn_threads": 3, "gunicorn_timeout": 20}
    got = settings(plan=plan | {"gunicorn_graceful_timeout": 21})
    assert (got["workers"], got["threads"], got["worker_connections"]) == (5, 3, 3)
    assert (got["timeout"], got["graceful_timeout"]) == (20, 21)


def test_settings_of_a_role_that_stands_alone(settings):
    got = settings()
    assert got["wsgi_app"] == "shop.web:create_app()"
    assert got["worker_tmp_dir"] == "/dev/shm"
    assert got["control_socket_disable"] is True
    assert got["preload_app"] is False
    assert got["max_requests_jitter"] > 0


def test_gunicorns_own_settings_are_python(settings):
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


def test_environment_is_added_to_and_renamed(environment):
    got = environment(
        app_database_password="p@ss",
        app_environment={"SQLALCHEMY_DATABASE_URI": "{{ app_database_url }}", "APP_ENV": "staging"},
        app_secret_environment={"TOKEN": 'a"b$c'},
    )
    assert got["DATABASE_URL"].startswith("mysql+pymysql://shop:p%40ss@/shop?")
    assert got["SQLALCHEMY_DATABASE_URI"] == got["DATABASE_URL"]
    assert got["APP_ENV"] == "staging"
    assert got["TOKEN"] == 'a"b$c'


def test_redis_group_only_where_redis_is(render):
    web = f"{UNITS}/web@.service.j2"
    assert "SupplementaryGroups=redis" in render("gunicorn", web, **APP)
    assert "SupplementaryGroups" not in render("gunicorn", web, **APP, group_names=["app"])


def test_sandbox_can_be_loosened_by_name(render):
    unit = render("gunicorn", f"{UNITS}/web@.service.j2", **APP)
    loose = {"MemoryDenyWriteExecute": False, "ReadWritePaths": ["/srv/a", "/srv/b"]}
    changed = render("gunicorn", f"{UNITS}/web@.service.j2", **APP, gunicorn_sandbox=loose)
    assert "MemoryDenyWriteExecute=yes" in unit
    assert "MemoryDenyWriteExecute=no" in changed
    assert "ReadWritePaths=/srv/a\nReadWritePaths=/srv/b\n" in changed


def test_process_unit_holds_the_command_and_no_secret(render):
    unit = render("gunicorn", f"{UNITS}/process@.service.j2", **APP, item=PROCESS)
    assert "ExecStart=rq worker --job 50%% default\n" in unit
    assert "Slice=shop-processes.slice\n" in unit
    assert SECRET not in unit


def test_target_wants_every_instance(render):
    processes = [PROCESS | {"instances": 2}, {"name": "off", "command": "x", "instances": 0}]
    target = render("gunicorn", f"{UNITS}/app.target.j2", **APP, app_processes=processes)
    wanted = " ".join(
        line.removeprefix("Wants=") for line in target.splitlines() if line.startswith("Wants=")
    )
    assert wanted.split() == [
        "shop-web@a.socket",
        "shop-web@a.service",
        "shop-worker@1.service",
        "shop-worker@2.service",
    ]


def test_run_passes_shellcheck(render):
    script = render("gunicorn", "usr/local/bin/run.j2", **APP)
    # The files it sources are on the host only.
    check = ["shellcheck", "--severity=warning", "-"]
    done = subprocess.run(check, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"app_wsgi": "shop:app"},
        {"app_environment": {"FLASK_DEBUG": "0", "DEBUG": False}},
        {"app_prefix": "/shop/eu"},
        {"app_processes": [PROCESS | {"command": "flask rq worker"}]},
        {"app_processes": [PROCESS | {"command": "python -m shop.run"}]},
    ],
)
def test_accepted(evaluate, variables):
    assert evaluate("gunicorn", "__app_refusals + __gunicorn_refusals", **APP | variables) == []


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"app_wsgi": "app.run"}, "app_wsgi"),
        ({"app_wsgi": "app:run"}, "app_wsgi"),
        ({"app_wsgi": "app:run()"}, "app_wsgi"),
        ({"app_wsgi": "flask run"}, "app_wsgi"),
        ({"app_wsgi": ""}, "app_wsgi"),
        ({"app_secret_key": ""}, "app_secret_key"),
        ({"app_secret_key": "short-but-random-8fj2"}, "app_secret_key"),
        ({"app_secret_key": "change-me-change-me-change-me-change-me"}, "app_secret_key"),
        ({"app_secret_key": "a" * 64}, "app_secret_key"),
        ({"app_name": "9shop", "app_user": "shop"}, "app_name"),
        ({"app_name": "mysql", "app_user": "shop"}, "app_name"),
        ({"app_user": "root"}, "app_user"),
        ({"app_env": "development"}, "app_env"),
        ({"app_environment": {"FLASK_DEBUG": "1"}}, "app_environment"),
        ({"app_environment": {"FLASK_ENV": "development"}}, "app_environment"),
        ({"app_environment": {"GUNICORN_CMD_ARGS": "--reload"}}, "app_environment"),
        ({"app_secret_environment": {"DEBUG": True}}, "app_environment"),
        ({"app_environment": {"SECRET_KEY": "dev"}}, "app_environment"),
        ({"app_prefix": "shop"}, "app_prefix"),
        ({"app_prefix": "/shop/"}, "app_prefix"),
        ({"app_health_path": "healthz"}, "app_health_path"),
        ({"app_processes": [PROCESS | {"name": "web"}]}, "app_processes"),
        ({"app_processes": [PROCESS, PROCESS]}, "app_processes"),
        ({"app_processes": [PROCESS | {"command": "flask --app shop run"}]}, "app_processes"),
        ({"app_processes": [PROCESS | {"command": "python -m flask run -p 80"}]}, "app_processes"),
        ({"app_processes": [PROCESS | {"command": "python manage.py runserver"}]}, "app_processes"),
        ({"app_processes": [PROCESS | {"command": "python3 app.py"}]}, "app_processes"),
        ({"app_processes": [PROCESS | {"instances": -1}]}, "app_processes"),
        ({"app_processes": [PROCESS | {"environment": {"DEBUG": 1}}]}, "app_environment"),
        ({"app_shared_paths": ["../x"]}, "app_shared_paths"),
        ({"app_static": [{"url": "/s/", "folder": "/etc"}]}, "app_shared_paths"),
        ({"app_source_folder": "a", "app_source_git": "b"}, "app_source_folder"),
        ({"app_upload_size": 0}, "app_upload_size"),
        ({"request_timeout": 0}, "request_timeout"),
        ({"gunicorn_settings": {"reload": True}}, "gunicorn_settings"),
        ({"gunicorn_workers": 0}, "gunicorn_workers"),
        ({"gunicorn_graceful_timeout": 29}, "gunicorn_graceful_timeout"),
        ({"gunicorn_stop_timeout": 30}, "gunicorn_stop_timeout"),
    ],
)
def test_refused(evaluate, variables, name):
    messages = evaluate("gunicorn", "__app_refusals + __gunicorn_refusals", **APP | variables)
    assert len(messages) == 1
    assert messages[0].startswith(name)
    assert "group_vars/all/main.yml" in messages[0]


@pytest.mark.parametrize("secret", ["hunter2", "change-me-hunter2-change-me-change-me"])
def test_refusal_keeps_the_secret(evaluate, secret):
    messages = evaluate("gunicorn", "__gunicorn_refusals", **APP | {"app_secret_key": secret})
    assert len(messages) == 1
    assert secret not in messages[0]
