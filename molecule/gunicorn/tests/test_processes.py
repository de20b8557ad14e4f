"""Background processes: hosts, schedules, restarts and changes."""

import pytest

from helpers.wait import wait_for

CLOCK, BELL = "probe-clock@1.service", "probe-bell@1.service"


@pytest.fixture
def declared(host):
    """Return the processes that the inventory declares."""
    return host.ansible.get_variables()["app_processes"]


@pytest.fixture
def declare(host, operator):
    """Return `declare(processes)`, which runs the role on this host with other processes."""
    name = host.backend.get_hostname()
    if name != "bookworm":
        pytest.skip("each run takes its time, and the first host has the singleton")

    def declare(processes):
        playbook = "molecule/gunicorn/processes.yml"
        return operator.play(playbook, "--limit", name, app_processes=processes)

    return declare


@pytest.fixture
def running(host, unit):
    """Return `running(*units)`, which returns their main process ids ("0" if not running)."""
    return lambda *units: [unit(name, "MainPID") for name in units]


def test_commands_and_variables_are_passed_unchanged(host, unit):
    """The quoting of quotes.py matches systemd's rules."""
    environment = host.check_output("cat /proc/%s/environ", unit(CLOCK, "MainPID")).split("\0")
    assert 'COLOUR=100% "red" $HOME \\ %n é 😀' in environment
    pid = unit("probe-ticker@1.service", "MainPID")
    if pid == "0":
        pytest.skip("the singleton runs on the first host")
    words = host.check_output("cat /proc/%s/cmdline", pid).split("\0")[3:-1]
    expected = ["a  b", "50%", "%n", "$5", ";", "\\d", "it's", '"q"', "é", "😀", "", "-x", "#"]
    assert words == [*expected, "production"]


@pytest.fixture
def run(host, unit):
    """Start a scheduled run manually, return its process id, and stop it after the test."""
    host.check_output("systemctl start --no-block probe-nightly.service")
    yield wait_for(lambda: unit("probe-nightly.service", "MainPID").lstrip("0"))
    host.run("systemctl stop probe-nightly.service")


def changed(processes, name, **options):
    """Return the processes with changed options for the one called `name`."""
    return [process | options if process["name"] == name else process for process in processes]


def test_singleton_runs_only_on_the_first_host(host, unit):
    first = host.ansible.get_variables()["groups"]["app"][0] == host.backend.get_hostname()
    state = unit("probe-ticker@1.service", "ActiveState")
    assert state == ("active" if first else "inactive")


def test_stop_signal_and_memory_limits(unit):
    assert unit(BELL, "KillSignal") == "2"
    assert unit(BELL, "MemoryMax") == str(100 * 1024**2)
    assert unit(BELL, "MemoryHigh") == str(97 * 1024**2)
    assert unit(CLOCK, "MemoryMax") == "infinity"


def test_process_uses_the_resolved_path_of_its_release(host, unit):
    pid = unit(CLOCK, "MainPID")
    environment = host.check_output("tr '\\0' '\\n' </proc/%s/environ", pid)
    assert "PATH=/srv/probe/releases/test/.venv/bin:" in environment
    assert "/srv/probe/current" not in environment
    assert host.check_output("readlink /proc/%s/cwd", pid) == "/srv/probe/releases/test"


def test_scheduled_process_runs_repeatedly(host):
    def log():
        return host.check_output("journalctl -o cat -t probe-often").splitlines()

    known = log().count("test")
    wait_for(lambda: log().count("test") >= known + 2, 20)
    release = "/srv/probe/releases/test"
    path = f"{release}/.venv/bin:{release}/.site-packages/bin:/usr/local/bin:/usr/bin:/bin"
    assert path in log()


def test_restart_of_the_app_does_not_interrupt_a_run(host, unit, run):
    host.check_output("systemctl restart probe.target")
    assert unit("probe-nightly.service", "MainPID") == run
    wait_for(lambda: unit("probe-nightly.timer", "ActiveState") == "active")


def test_missed_run_is_caught_up_once(host, unit):
    """An old timestamp simulates a host that was off at that time."""
    host.check_output("systemctl stop probe-nightly.timer")
    host.check_output("touch -d 'now - 2 days' /var/lib/systemd/timers/stamp-probe-nightly.timer")
    host.check_output("systemctl start probe-nightly.timer")
    wait_for(lambda: unit("probe-nightly.service", "ActiveState") == "activating")
    host.check_output("systemctl stop probe-nightly.service")
    host.check_output("systemctl restart probe-nightly.timer")
    assert unit("probe-nightly.service", "ActiveState") in ("inactive", "failed")


def test_only_a_changed_process_is_restarted(declare, declared, running, run, unit):
    """The next test restores the declared processes."""
    others = (CLOCK, "probe-clock@2.service")
    before, bell = running(*others), unit(BELL, "MainPID")
    result = declare(changed(declared, "bell", environment={"TUNE": "other"}))
    assert result.code == 0, result.output
    assert unit(BELL, "MainPID") not in (bell, "0")
    assert running(*others) == before
    assert unit("probe-nightly.service", "MainPID") == run


def test_removed_and_converted_processes(declare, declared, running, host, unit):
    """One is removed, one becomes a timer, a timer becomes a service, one has fewer instances."""
    before = running(CLOCK)
    other = [process for process in declared if process["name"] != "ticker"]
    other = changed(other, "clock", instances=1)
    other = changed(other, "bell", schedule="daily", stop_signal="SIGTERM")
    other = changed(other, "nightly", schedule="")
    try:
        result = declare(other)
        assert result.code == 0, result.output
        assert running(CLOCK) == before
        gone = [BELL, "probe-ticker@1.service", "probe-clock@2.service", "probe-nightly.timer"]
        assert [unit(name, "ActiveState") for name in gone] == ["inactive"] * 4
        assert unit("probe-bell.timer", "ActiveState") == "active"
        assert unit("probe-nightly@1.service", "ActiveState") == "active"
        files = host.check_output("ls /etc/systemd/system /var/lib/systemd/timers").splitlines()
        left = {"probe-ticker@.service", "probe-bell@.service", "probe-nightly.timer"}
        assert not {*left, "stamp-probe-nightly.timer"} & set(files)
        assert declare(other).changed == 0
    finally:
        result = declare(declared)
    assert result.code == 0, result.output
    assert unit("probe-bell.timer", "ActiveState") == "inactive"
    assert running(CLOCK) == before


def test_schedule_without_a_next_run_is_rejected(declare, declared):
    result = declare(changed(declared, "nightly", schedule="*-02-30 03:30"))
    assert result.code != 0
    assert result.says("must have schedules with a future run")
