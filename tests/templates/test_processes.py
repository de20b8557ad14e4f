"""Units of background processes, and validation of app_processes."""

import shlex

import pytest

SECRET = "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"
APP = {"app_wsgi": "shop.web:create_app()", "app_secret_key": SECRET, "app_no_log": True}
WORKER = {"name": "worker", "command": "rq worker --job 50% default"}
NIGHTLY = {"name": "nightly", "command": "flask nightly", "schedule": "*-*-* 03:30"}
UNITS = "units"
FLEET = {"groups": {"app": ["other", "host"]}}
MARKER = "ConditionPathExists=/etc/shop/singletons"


@pytest.fixture
def unit(render, evaluate):
    """Return `unit(template, process, **options)`, which returns the lines of a unit file."""

    def unit(template, process, **options):
        (filled,) = evaluate("gunicorn", "__app_processes", app_processes=[process | options])
        text = render("gunicorn", f"{UNITS}/{template}.j2", **APP, process=filled)
        assert SECRET not in text
        return text.splitlines()

    return unit


def test_process_is_a_service_in_its_slice(unit):
    lines = unit("process@.service", WORKER)
    assert {"Type=exec", "Restart=always", "Slice=shop-processes.slice"} <= set(lines)
    assert "PartOf=shop.target" in lines
    assert not [line for line in lines if line.startswith("Memory") and "DenyWrite" not in line]


@pytest.mark.parametrize("template", ["process@.service", "process.service", "commands.conf"])
def test_background_units_read_the_background_environment(unit, template):
    files = [line for line in unit(template, WORKER) if line.startswith("EnvironmentFile=")]
    current = "EnvironmentFile=/etc/shop/current"
    assert (files[0], files[-1]) == (f"{current}/environment", f"{current}/background")


@pytest.mark.parametrize("template", ["process@.service", "process.service"])
def test_command_runs_with_the_resolved_path_of_the_release(unit, template):
    (started,) = [line for line in unit(template, WORKER) if line.startswith("ExecStart=")]
    shell, option, script, name, *command = shlex.split(started.removeprefix("ExecStart="))
    assert (shell, option, name) == ("/bin/sh", "-c", "sh")
    assert script.startswith('PATH="$$(pwd -P)/.venv/bin:')
    assert command == ["rq", "worker", "--job", "50%%", "default"]


def test_stop_and_memory_options_of_a_process(unit):
    options = {"stop_signal": "SIGQUIT", "stop_timeout": 300, "memory_limit": 200, "watchdog": 90}
    lines = unit("process@.service", WORKER, **options, environment={"COLOUR": '50% "red" 😀'})
    assert {"KillSignal=SIGQUIT", "TimeoutStopSec=300", "KillMode=mixed"} <= set(lines)
    assert "WatchdogSec=90" in lines
    assert {"MemoryHigh=194M", "MemoryMax=200M", "MemorySwapMax=50M"} <= set(lines)
    assert 'Environment="COLOUR=50%% \\"red\\" 😀"' in lines


def test_scheduled_run_is_not_restarted_with_the_app(unit):
    lines = unit("process.service", NIGHTLY, stop_timeout=5)
    assert {"Type=oneshot", "Slice=shop-timers.slice", "TimeoutStopSec=5"} <= set(lines)
    assert not [line for line in lines if line.startswith(("PartOf=", "Restart="))]


def test_timer_has_the_schedule(unit):
    lines = unit("process.timer", NIGHTLY)
    assert {"OnCalendar=*-*-* 03:30", "Persistent=yes", "PartOf=shop.target"} <= set(lines)
    lines = unit("process.timer", NIGHTLY, catch_up=False, random_delay=600)
    assert {"Persistent=no", "RandomizedDelaySec=600"} <= set(lines)


PROCESSES = [
    WORKER | {"instances": 2},
    WORKER | {"name": "idle", "instances": 0},
    WORKER | {"name": "ticker", "singleton": True},
    NIGHTLY,
    NIGHTLY | {"name": "report", "singleton": True},
]
EVERYWHERE = ["shop-worker@1.service", "shop-worker@2.service", "shop-nightly.timer"]
ONCE = ["shop-ticker@1.service", "shop-report.timer"]


def test_target_wants_the_declared_units(render):
    variables = APP | FLEET | {"app_processes": PROCESSES}
    target = render("gunicorn", f"{UNITS}/app.target.j2", **variables)
    lines = [line.removeprefix("Wants=") for line in target.splitlines() if "Wants=" in line]
    units = " ".join(lines).split()
    assert sorted(unit for unit in units if "shop-web@" not in unit) == sorted(EVERYWHERE + ONCE)


@pytest.mark.parametrize("singleton", [True, False])
@pytest.mark.parametrize("template", ["process@.service", "process.service", "process.timer"])
def test_singleton_starts_only_with_the_marker_file(unit, template, singleton):
    assert (MARKER in unit(template, NIGHTLY, singleton=singleton)) == singleton


@pytest.mark.parametrize(
    ("groups", "host"), [({}, "host"), ({"app": []}, "host"), (FLEET["groups"], "other")]
)
def test_singletons_default_to_the_first_host(evaluate, groups, host):
    assert evaluate("gunicorn", "app_singleton_host", groups=groups) == host


LEFT = {"item": "other", "moves": True}
SILENT = {"item": "other", "unreachable": True}


@pytest.mark.parametrize(
    ("own", "elsewhere", "hosts", "message"),
    [
        (True, [], ["host", "other"], ""),
        (True, [{"item": "other", "moves": False}], ["host"], ""),
        (True, [LEFT], ["host"], "runs (other) unless"),
        (True, [SILENT], ["host"], "while other, where it may run, does not answer"),
        (False, [], ["host", "other"], ""),
        (False, [], ["host"], "runs (host) unless"),
    ],
)
def test_moving_a_singleton_needs_both_hosts_in_the_run(evaluate, own, elsewhere, hosts, message):
    messages = evaluate(
        "gunicorn",
        "__gunicorn_singleton_problems",
        **FLEET,
        app_processes=PROCESSES,
        app_singleton_host="host" if own else "other",
        ansible_play_hosts_all=hosts,
        __gunicorn_singletons={"moves": True},
        __gunicorn_singletons_elsewhere={"results": elsewhere},
    )
    assert len(messages) == bool(message)
    assert message in "".join(messages)


@pytest.mark.parametrize(
    ("host", "moves", "others"),
    [("host", True, ["other"]), ("host", False, []), ("other", True, [])],
)
def test_other_hosts_are_checked_when_singletons_move_here(evaluate, host, moves, others):
    found = evaluate(
        "gunicorn",
        "__gunicorn_singletons_others",
        **FLEET,
        app_singleton_host=host,
        __gunicorn_singletons={"moves": moves},
    )
    assert found == others
