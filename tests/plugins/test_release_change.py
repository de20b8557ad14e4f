"""What serves on a host changes whole, or not at all; on a host that is only played."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import cycle
from types import SimpleNamespace

import pytest

from parts import load_part
from waiting import wait_for

home = load_part("module_utils/release_home.py")
units = load_part("module_utils/release_units.py")
change = load_part("module_utils/release_change.py")
starter = load_part("library/release_start.py")
switcher = load_part("library/release_switch.py")

WORKER = "shop-worker@1.service"
SERVICES = ("shop-web@a.service", "shop-web@b.service")


class Host:
    """Plays systemd, and an app whose releases behave as their names say."""

    def __init__(self, root):
        """Make the app's folder below `root`."""
        self.root, self.home = root, home.Home(root, "shop")
        self.units, self.log, self.queue, self.pid = {}, [], [], 100
        self.busy = 0  # looks for which the worker finishes its job
        for name in ("releases", "instances", "environments"):
            (root / name).mkdir(parents=True)

    def ship(self, release, environment="env"):
        """Put a release on the host."""
        (self.root / "releases" / release).mkdir()
        (self.root / "releases" / release / ".venv").symlink_to(f"../../environments/{environment}")
        (self.root / "environments" / environment).mkdir(exist_ok=True)

    def release_of(self, unit):
        """Return the release that a unit would start."""
        slot = unit.split("@")[1][0]
        return self.home.release_in(slot) if "-web@" in unit else self.home.current()

    def start(self, unit):
        """Start a unit as systemd does."""
        release, self.pid = self.release_of(unit), self.pid + 1
        if not release or not (self.root / "releases" / release).is_dir():
            return  # the unit's condition is not met
        died = "dies" in release and "-web@" in unit and unit.endswith("service")
        died = died or ("idles" in release and unit == WORKER)
        state = {"ActiveState": "activating" if died else "active"}
        state |= {"SubState": "auto-restart" if died else "running", "Result": "exit-code"}
        self.units[unit] = state | {"MainPID": str(self.pid), "release": release}

    def run(self, command, **_):
        """Run a command as AnsibleModule.run_command does."""
        words = [word for word in command if not word.startswith("-")]
        if words[0] == "ss":
            waiting = self.queue.pop(0) if self.queue else 0
            return 0, f"u_str LISTEN {waiting} 2048 {command[-1].split()[-1]} 1 * 0\n", ""
        if words[0] == "journalctl":
            return 0, "line one\nline two\n", ""
        verb, names = words[1], words[2:]
        if verb == "show":
            return 0, "\n\n".join(self.shown(name) for name in names), ""
        self.log += [f"{verb} {name}" for name in names if verb != "reset-failed"]
        for name in names:
            if verb == "restart" or (verb == "start" and self.state(name) != "active"):
                self.start(name)
            elif verb == "stop":
                self.units.pop(name, None)
        return 0, "", ""

    def state(self, unit):
        """Return a unit's state."""
        return self.units.get(unit, {}).get("ActiveState", "inactive")

    def shown(self, unit):
        """Return what `systemctl show` says."""
        if unit == WORKER and self.busy:
            self.busy -= 1
            return f"Id={unit}\nActiveState=deactivating\nSubState=stop-sigterm\nMainPID=1\nJob=7"
        said = {"Id": unit, "ActiveState": "inactive", "SubState": "dead", "MainPID": "0"}
        said |= {"NRestarts": "0", "Result": "success", "TimeoutStopUSec": "1s"}
        return "\n".join(
            f"{key}={value}" for key, value in (said | self.units.get(unit, {})).items()
        )

    def answer(self, door):
        """Answer the health question at a socket."""
        slot = door.removesuffix(".sock")[-1]
        release = self.units.get(f"shop-web@{slot}.service", {}).get("release", "")
        if "tires" in release:
            self.asked = getattr(self, "asked", 0) + 1
            return self.asked < 2, "GET /: 503"
        return "sick" not in release and bool(release), f"GET /: {release}"

    def change(self, release, **options):
        """Return the change to a release."""
        wanted = {
            "root": str(self.root),
            "app": "shop",
            "id": release,
            "processes": [WORKER],
            "path": "/",
            "headers": {},
            "status": 200,
            "body": "",
            "timeout": 0,
            "watch": 0.0,
            "commit": "",
            "by": "ada@desk",
            "state": "started",
            "strategy": "switch",
            "keep": 3,
        }
        module = SimpleNamespace(params=wanted | options, run_command=self.run)
        made = change.Change(module)
        made.watch.health.ask = lambda door, patience: self.answer(door)
        return made, module.params

    def deploy(self, release, **options):
        """Ship a release and put it in use; return what the modules say."""
        if not (self.root / "releases" / release).exists():
            self.ship(release)
        made, wanted = self.change(release, **options)
        if wanted["strategy"] == "switch":
            said = starter.start(made, wanted)
            if "msg" in said:
                return said
        made, wanted = self.change(release, **options)
        return switcher.activate(made, wanted)

    def serves(self):
        """Return what serves in which slot; everything must agree on it."""
        slot, release = self.home.live(), self.home.serving()
        assert self.home.current() == release
        other = "b" if slot == "a" else "a"
        assert self.state(f"shop-web@{other}.socket") == "inactive"
        assert self.state(f"shop-web@{other}.service") == "inactive"
        assert not self.home.release_in(other)
        assert not self.home.under_way()
        if release:
            assert self.units[f"shop-web@{slot}.service"]["release"] == release
            assert self.units[WORKER]["release"] == release
            assert self.state(f"shop-web@{slot}.socket") == "active"
        return slot, release

    def releases(self):
        """Name the releases on the host."""
        return sorted(path.name for path in (self.root / "releases").iterdir())


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "children", lambda pid: set())
    monkeypatch.setattr(units.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(units, "asleep", lambda pid: True)
    return Host(tmp_path)


def test_the_first_release_serves(host):
    assert host.deploy("one")["previous"] == ""
    assert host.serves() == ("a", "one")
    assert os.readlink(host.root / "web.sock") == "/run/shop/a.sock"
    assert not host.home.previous()


def test_releases_take_turns_in_two_slots(host):
    host.deploy("one")
    host.log.clear()
    assert host.deploy("two")["previous"] == "one"
    assert host.serves() == ("b", "two")
    assert host.home.previous() == "one"
    old = [line for line in host.log if "@a" in line]
    assert old == ["stop shop-web@a.socket", "stop shop-web@a.service"]
    assert host.log.index(f"restart {WORKER}") < host.log.index(old[0])
    host.deploy("three")
    assert host.serves() == ("a", "three")


def test_the_old_instance_takes_what_waits_for_it_before_it_stops(host):
    host.deploy("one")
    host.queue = [2, 0, 1, 0, 0, 0]
    host.deploy("two")
    assert host.queue == []


@pytest.mark.parametrize(
    ("release", "step"),
    [
        ("dies", "Start the release"),
        ("sick", "Start the release"),
        ("tires", "Watch the release"),
    ],
)
def test_a_release_that_is_not_well_leaves_nothing(host, release, step):
    host.deploy("one")
    host.log.clear()
    said = host.deploy(release)
    assert host.serves() == ("a", "one")
    assert host.releases() == ["one"]
    assert not any("@a" in line or WORKER in line for line in host.log)
    assert said["current"] == "one"
    assert f'{release} is not in use: it failed at "{step}":' in said["msg"]
    assert "one serves as before." in said["msg"]
    assert "The last lines of shop-web@b.service:\nline one\nline two" in said["msg"]


def test_a_new_release_is_warm_before_it_has_visitors(host, monkeypatch):
    warmed = []

    def warm(health, door, paths, visitors):
        warmed.append((host.home.serving(), door, paths, visitors))

    monkeypatch.setattr(units, "children", lambda pid: {"7", "8"})
    monkeypatch.setattr(units.Health, "warm", warm)
    host.deploy("one")
    host.deploy("two", warm_up=["/", "/notes"])
    assert warmed[1:] == [("one", host.home.socket("b"), ["/", "/notes"], 8)]


def test_a_release_that_visitors_would_bring_down_gets_none(host, monkeypatch):
    host.deploy("one")
    workers = {"7", "8"}
    monkeypatch.setattr(units, "children", lambda pid: set(workers))
    monkeypatch.setattr(units.Health, "warm", lambda *_: workers.remove("8"))
    assert host.deploy("two")["reason"] == "shop-web@b.service lost 1 of its workers"
    assert host.serves() == ("a", "one")


def test_a_release_is_watched_while_it_has_visitors_and_asked_when_they_have_left(
    host, monkeypatch
):
    """However long they stay: an instance that is busy with them is slow with an answer."""
    host.deploy("one")
    leave, inside, looked = threading.Event(), threading.Event(), []

    def warm(*_):
        inside.set()
        leave.wait(10)

    def sleep(seconds):
        if inside.wait(10) and not leave.is_set():
            asked = getattr(host, "asked", 0)
            looked.append(asked)
            if len(looked) == 5:
                leave.set()

    monkeypatch.setattr(units.Health, "warm", warm)
    monkeypatch.setattr(units.time, "sleep", sleep)
    said = host.deploy("tires", warm_up=["/"])
    assert len(looked) == 5, "nobody looked while there were visitors"
    assert set(looked) == {1}, "it was asked while it had visitors"
    assert said["answer"] == "GET /: 503"
    assert host.serves() == ("a", "one")


def test_what_waits_for_the_old_instance_is_taken_after_a_watch_too(host, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(units.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(units.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    host.deploy("one")
    host.queue = [2, 1, 0]
    host.deploy("two", watch=1.0)
    assert host.queue == []
    assert host.serves() == ("b", "two")


def test_a_release_that_loses_a_worker_is_not_well(host, monkeypatch):
    host.deploy("one")
    workers = iter([{"1", "2"}, {"2", "3"}])
    monkeypatch.setattr(units, "children", lambda pid: next(workers))
    said = host.deploy("two")
    assert (said["step"], said["reason"]) == (
        "Watch the release",
        "shop-web@b.service lost 1 of its workers",
    )
    assert host.serves() == ("a", "one")


def test_a_background_process_that_dies_brings_the_old_release_back(host):
    host.deploy("zero")
    host.deploy("one")
    host.log.clear()
    said = host.deploy("idles")
    assert not any("kill" in line for line in host.log), "a request that it held is lost"
    assert said["reason"] == f"{WORKER} died (exit-code)"
    assert host.serves() == ("b", "one")
    assert host.home.previous() == "zero"
    assert host.releases() == ["one", "zero"]


def test_a_background_process_may_finish_its_job_before_it_is_replaced(host):
    host.deploy("one")
    host.busy = 5
    assert host.deploy("two")["current"] == "two"
    assert host.busy == 0
    assert host.serves() == ("b", "two")


def test_an_instance_that_does_not_end_is_the_next_deploys_to_clean(host, monkeypatch):
    host.deploy("one")
    with monkeypatch.context() as patches:
        gone, calls = units.Units.gone, iter([False, True])

        def stuck(self, *names):
            if next(calls):
                raise units.FailedError("stop", "it did not end")
            gone(self, *names)

        patches.setattr(units.Units, "gone", stuck)
        assert host.deploy("sick")["reason"].startswith("shop-web@b.service was not well")
    assert host.home.under_way()
    host.deploy("two")
    assert host.serves() == ("b", "two")
    assert host.releases() == ["one", "two"]


def test_what_runs_in_a_slot_without_traffic_makes_room(host):
    host.units["shop-web@a.service"] = {"ActiveState": "active", "release": "stray"}
    host.deploy("one")
    assert host.serves() == ("a", "one")


@pytest.mark.parametrize("release", ["dies", "idles"])
@pytest.mark.parametrize("strategy", ["switch", "restart"])
def test_a_first_release_that_is_not_well_leaves_nothing_that_runs(host, release, strategy):
    said = host.deploy(release, strategy=strategy)
    assert "Nothing serves yet." in said["msg"]
    assert host.serves() == ("", "")
    assert not host.units
    assert not (host.root / "web.sock").is_symlink()
    assert host.releases() == []


def test_a_release_that_once_served_is_kept_when_it_fails(host):
    for release in ("one", "two"):
        host.deploy(release)
    host.deploy("sick", keep=9)
    with (host.root / "deploys.jsonl").open("a") as file:
        file.write(json.dumps({"release": "sick", "previous": "", "time": "2026"}) + "\n")
    assert "msg" in host.deploy("sick")
    assert host.releases() == ["one", "sick", "two"]


def test_a_release_restarts_in_its_slot(host):
    host.deploy("one", strategy="restart")
    host.log.clear()
    host.deploy("two", strategy="restart")
    assert host.serves() == ("a", "two")
    assert not any("stop" in line for line in host.log)
    assert host.home.previous() == "one"


@pytest.mark.parametrize("release", ["dies", "sick", "idles"])
def test_a_restart_that_fails_brings_the_old_release_back(host, release):
    host.deploy("one", strategy="restart")
    assert "one serves as before." in host.deploy(release, strategy="restart")["msg"]
    assert host.serves() == ("a", "one")
    assert host.releases() == ["one"]


def test_another_strategy_takes_over(host):
    for strategy in ("switch", "switch", "restart", "switch"):
        host.deploy(f"by-{len(host.log)}", strategy=strategy)
    assert host.serves()[0] == "a"


class Cut(BaseException):
    """The connection is gone, and the module with it."""


def cut_at(monkeypatch, owner, name, skip=0):
    """Cut the next deploy where it calls something for the `skip`th time."""
    original, calls = getattr(owner, name), iter(range(skip))

    def cut(*arguments, **options):
        if next(calls, None) is None:
            raise Cut
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, cut)


def cut_deploy(host, monkeypatch, point, **options):
    """Deploy release two, and cut that."""
    with monkeypatch.context() as patches:
        cut_at(patches, *point)
        with pytest.raises(Cut):
            host.deploy("two", **options)


POINTS = {
    "noted": (home.Home, "occupy", 0),
    "linked": (units.Units, "start", 0),
    "started": (units.Watch, "stay_well", 0),
    "half switched": (home, "link", 2),
    "switched": (units.Units, "restart", 0),
    "watched": (units.Watch, "stay_well", 1),
    "drained": (home.Home, "record", 0),
    "recorded": (home.Home, "end", 0),
    "done": (home.Home, "prune", 0),
}
FORWARD = ("switched", "watched", "drained", "recorded", "done")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("then", ["next", "two", "dies"])
def test_after_a_deploy_that_was_cut_the_next_one_cleans_up(host, monkeypatch, point, then):
    host.deploy("one")
    cut_deploy(host, monkeypatch, POINTS[point])
    said = host.deploy(then)
    before = "two" if point in FORWARD else "one"
    assert host.serves()[1] == (before if then == "dies" else then)
    assert said["current"] == (before if then == "dies" else then)
    served = [entry["release"] for entry in host.home.history()]
    assert served.count("two") == (point in FORWARD or then == "two") + (
        point in FORWARD and then == "two"
    )
    assert ("two" in host.releases()) == ("two" in served)


@pytest.mark.parametrize("point", ["noted", "half linked", "restarted", "watched"])
def test_a_restart_that_was_cut_is_undone(host, monkeypatch, point):
    host.deploy("one", strategy="restart")
    points = {
        "noted": (home.Home, "occupy", 0),
        "half linked": (home.Home, "serve", 0),
        "restarted": (units.Watch, "until_up", 0),
        "watched": (units.Watch, "stay_well", 0),
    }
    cut_deploy(host, monkeypatch, points[point], strategy="restart")
    made, wanted = host.change("two", state="absent")
    assert starter.start(made, wanted) == {"current": "one"}
    assert host.serves() == ("a", "one")
    assert host.releases() == ["one"]


@pytest.mark.parametrize(("release", "left"), [("two", ["one"]), ("one", ["one", "two"])])
def test_a_release_that_never_served_is_removed_when_its_deploy_fails(host, release, left):
    host.deploy("one")
    host.ship("two")
    made, wanted = host.change(release, state="absent")
    starter.start(made, wanted)
    assert sorted(host.releases()) == left
    assert host.serves() == ("a", "one")


def test_a_release_that_is_not_there_is_not_started(host):
    host.deploy("one")
    for strategy in ("switch", "restart"):
        made, wanted = host.change("two", strategy=strategy)
        run = starter.start if strategy == "switch" else switcher.activate
        assert run(made, wanted)["reason"] == "it is not on this host"
        assert host.serves() == ("a", "one")


def test_a_release_that_was_not_started_is_not_switched_to(host):
    host.deploy("one")
    host.ship("two")
    made, wanted = host.change("two")
    said = switcher.activate(made, wanted)
    assert said["reason"] == "it is not started on this host"
    assert host.serves() == ("a", "one")


def test_the_history_tells_who_put_which_commit_in_use(host):
    host.deploy("one", commit="abc")
    host.deploy("two", commit="def")
    host.deploy("one")
    with (host.root / "deploys.jsonl").open("a") as file:
        file.write('{"time": "20')
    told = [(entry["release"], entry["previous"], entry["commit"]) for entry in host.home.history()]
    assert told == [("one", "", "abc"), ("two", "one", "def"), ("one", "two", "abc")]
    assert {entry["by"] for entry in host.home.history()} == {"ada@desk"}


def test_old_releases_go_with_the_environments_that_only_they_used(host):
    host.ship("old", "old-env")
    host.deploy("one")
    (host.root / "releases/.half").mkdir()
    for release in ("two", "three"):
        said = host.deploy(release, keep=2)
    assert host.releases() == ["three", "two"]
    assert "releases/one" in said["removed"]
    assert sorted(path.name for path in (host.root / "environments").iterdir()) == ["env"]


def test_a_release_in_which_something_still_runs_is_kept(host):
    host.ship("busy", "busy-env")
    wait = [sys.executable, "-c", "input()"]
    folder = host.root / "releases/busy"
    with subprocess.Popen(wait, cwd=folder, stdin=subprocess.PIPE) as process:
        host.deploy("one", keep=2)
        host.deploy("two", keep=2)
        assert "busy" in host.releases()
        assert (host.root / "environments/busy-env").is_dir()
        process.communicate(b"\n")
    host.deploy("three", keep=2)
    assert "busy" not in host.releases()


def test_deploys_of_one_host_wait_for_each_other(host):
    order, inside = [], threading.Event()

    def second():
        inside.wait()
        with home.Home(host.root, "shop").locked():
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with host.home.locked():
        inside.set()
        with pytest.raises(BlockingIOError), home.Home(host.root, "shop").locked(0):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"ActiveState": "active", "SubState": "running"}, ""),
        ({"ActiveState": "activating", "SubState": "start"}, ""),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm", "Job": "7"}, ""),
        ({"ActiveState": "active", "NRestarts": "1"}, "u died"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"},
            "u died (signal)",
        ),
        ({"ActiveState": "failed", "Result": "exit-code"}, "u failed (exit-code)"),
        ({"ActiveState": "inactive", "SubState": "dead", "Result": "success"}, "u ended"),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, "u is ending"),
    ],
)
def test_what_is_wrong_with_a_unit(said, wrong):
    assert units.trouble("u", said) == wrong


@pytest.mark.parametrize(
    ("text", "length"),
    [("40s", 40), ("1min 30s", 90), ("2h", 7200), ("500ms", 0.5), ("infinity", 90)],
)
def test_time_spans_of_systemd(text, length):
    assert units.seconds(text) == length


class App:
    """Answers on a Unix socket."""

    def __init__(self, path, answer):
        """Listen at `path`, and give `answer` to whoever comes."""
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.asked, self.answer = b"", answer
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        """Answer one request."""
        connection, _ = self.server.accept()
        with connection, self.server:
            self.asked = connection.recv(10_000)
            connection.sendall(self.answer)


@pytest.mark.parametrize(
    ("status", "body", "well"),
    [(200, "", True), (200, "^up to", True), (200, "^down", False), (204, "", False)],
)
def test_the_health_path_is_asked_as_nginx_would(tmp_path, status, body, well):
    door = tmp_path / "web.sock"
    app = App(door, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nup to date")
    health = units.Health("/healthz", {"Host": "shop.example"}, status, body)
    said = health.ask(str(door), units.Patience(10))
    app.thread.join()
    assert said[0] is well
    assert said[1].startswith("GET /healthz: 200 OK up to date")
    assert app.asked.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"\r\nHost: shop.example\r\n" in app.asked


def test_an_app_that_does_not_answer_is_asked_only_while_there_is_patience(tmp_path):
    door = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(door))
        server.listen()
        said = units.Health("/", {}, 200, "").ask(str(door), units.Patience(0))
    assert said == (False, "GET /: no answer")


def test_nobody_answers_where_nobody_listens(tmp_path):
    well, said = units.Health("/", {}, 200, "").ask(str(tmp_path / "no"), units.Patience(10))
    assert (well, said[:27]) == (False, "GET /: FileNotFoundError: [")


def test_visitors_of_a_new_release_come_at_once_and_whatever_they_get_is_right(tmp_path):
    door, asked, together = tmp_path / "web.sock", [], threading.Barrier(4)

    class Visited(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline().split()[1].decode())
            together.wait(10)  # for one that came alone nobody else is there
            if len(asked) > 4:
                self.wfile.write(b"HTTP/1.0 500 No\r\n\r\n")

    with socketserver.ThreadingUnixStreamServer(str(door), Visited) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        units.Health("/healthz", {}, 200, "").warm(str(door), ["/", "/notes"], 4)
        server.shutdown()
        thread.join()
    assert asked == ["/"] * 4 + ["/notes"] * 4
    assert not together.broken


def test_a_visitor_of_a_new_release_does_not_stay_for_an_answer_without_end(tmp_path):
    door, left = tmp_path / "web.sock", threading.Event()

    class Endless(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            with suppress(OSError):
                for _ in range(100):  # ten seconds
                    self.wfile.write(b"data: on\n\n")
                    time.sleep(0.1)
                return
            left.set()

    with socketserver.ThreadingUnixStreamServer(str(door), Endless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        units.Health("/healthz", {}, 200, "").warm(str(door), ["/"], 1)
        assert left.wait(5)
        server.shutdown()
        thread.join()


def test_workers_are_the_children_of_gunicorn():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert str(process.pid) in units.children(str(os.getpid()))
        process.communicate(b"\n")
    assert str(process.pid) not in units.children(str(os.getpid()))


def test_a_process_that_dies_of_its_imports_is_seen_however_long_they_take(monkeypatch):
    class Dying:
        looks = 0

        def show(self, names):
            self.looks += 1
            state = {"ActiveState": "active", "SubState": "running", "MainPID": "7"}
            return dict.fromkeys(names, state | {"NRestarts": "0" if self.looks < 8 else "1"})

    slept = cycle([True, True, False])  # a look now and then falls between two imports
    monkeypatch.setattr(units, "asleep", lambda pid: next(slept))
    monkeypatch.setattr(units.time, "sleep", lambda seconds: None)
    well = SimpleNamespace(ask=lambda door, patience: (True, "200"))
    watch = units.Watch(Dying(), well)
    watch.remember(WORKER)
    with pytest.raises(units.FailedError, match="died"):
        watch.stay_well("Restart", [WORKER], "web", "door", 0, [WORKER])
    monkeypatch.setattr(units, "asleep", lambda pid: True)
    watch.units.looks = 0
    watch.stay_well("Restart", [WORKER], "web", "door", 0, [WORKER])  # at work: comes to an end


def test_a_process_that_waits_is_asleep_and_one_that_computes_is_not():
    for code, waits in (("input()", True), ("while True: pass", False)):
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            wait_for(lambda one=process, wanted=waits: units.asleep(str(one.pid)) is wanted, 10)
            process.kill()
    assert not units.asleep(str(process.pid))
