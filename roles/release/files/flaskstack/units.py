"""Control the app's systemd units, and check the app's health over its socket."""

from __future__ import annotations

import http.client
import itertools
import re
import select
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from subprocess import DEVNULL
from threading import Thread

from flaskstack.errors import DeployError

PROPERTIES = "Id,ActiveState,SubState,MainPID,NRestarts,Result,Job,TimeoutStopUSec"
UNITS = {"h": 3600, "min": 60, "s": 1, "ms": 0.001, "us": 0.000001}

REDIRECT = re.compile(r"GET \S+: 30[12378] ")  # an app that redirects will not stop doing so later
# Gunicorn's message about a worker that failed, unlike one that was recycled.
CRASH = re.compile(
    r"Worker \(pid:(\d+)\) (?:was sent|exited with code)|WORKER TIMEOUT \(pid:(\d+)\)"
)


def command(argv: list[str]) -> tuple[int, str, str]:
    """Run a program; return its exit code, output and errors."""
    done = subprocess.run(
        argv, capture_output=True, text=True, errors="replace", check=False, stdin=DEVNULL
    )
    return done.returncode, done.stdout, done.stderr


class Units:
    """The systemctl and journalctl calls used here."""

    def __init__(self, run: Callable[[list[str]], tuple[int, str, str]] = command) -> None:
        """Run commands with `run`, which returns code, output and errors."""
        self.run = run

    def show(self, units: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the properties of each unit."""
        names = list(units)
        if not names:
            return {}
        _, output, _ = self.run(["systemctl", "show", f"--property={PROPERTIES}", *names])
        blocks = [block for block in output.strip().split("\n\n") if block]
        said = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
        return dict(zip(names, said, strict=True))

    def state(self, unit: str) -> str:
        """Return a unit's state: active, inactive, failed, activating, deactivating."""
        return self.show([unit])[unit]["ActiveState"]

    def systemctl(self, verb: str, *units: str) -> None:
        """Queue a systemd job without waiting for it."""
        if units:
            code, _, errors = self.run(["systemctl", "--no-block", verb, *units])
            if code:
                raise DeployError(verb, f"systemctl {verb} {' '.join(units)}: {errors.strip()}")

    def start(self, *units: str) -> None:
        """Start units, including those over their start limit."""
        self.reset_failed(*units)
        self.systemctl("start", *units)

    def restart(self, *units: str) -> None:
        """Restart units, including those over their start limit."""
        self.reset_failed(*units)
        self.systemctl("restart", *units)

    def stop(self, *units: str) -> None:
        """Stop units and wait for them."""
        if units:
            self.run(["systemctl", "stop", *units])
            self.reset_failed(*units)

    def reload(self) -> None:
        """Reload all unit files."""
        self.run(["systemctl", "daemon-reload"])

    def enable(self, unit: str) -> None:
        """Enable a unit at boot."""
        if self.run(["systemctl", "is-enabled", "--quiet", unit])[0]:
            self.run(["systemctl", "enable", "--quiet", unit])

    def processes(self, app: str) -> set[str]:
        """Return the app's background services and timers that are not inactive."""
        shown = ["systemctl", "show", "--all", "--property=Id,ActiveState,Slice"]
        _, output, _ = self.run([*shown, f"{app}-*.service", f"{app}-*.timer"])
        said = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in output.split("\n\n")
        ]
        slices = {f"{app}-processes.slice", f"{app}-timers.slice"}
        services = {each["Id"] for each in said if each.get("Slice") in slices}
        active = {each["Id"] for each in said if each.get("ActiveState", "inactive") != "inactive"}
        timers = {name.removesuffix(".service") + ".timer" for name in services}
        return active & (services | timers)

    def reset_failed(self, *units: str) -> None:
        """Reset failed units. Units that are not loaded have no failures."""
        if units:
            self.run(["systemctl", "reset-failed", *units])

    def kill(self, *units: str) -> None:
        """Kill units without waiting for their work."""
        self.run(["systemctl", "--no-block", "stop", *units])
        self.run(["systemctl", "kill", "--signal=KILL", *units])
        self.wait_stopped(*units)
        self.reset_failed(*units)

    def wait_stopped(self, *units: str) -> None:
        """Wait until units have stopped, at most 15 seconds beyond their stop timeout."""
        began, said = time.monotonic(), self.show(units)
        allowed = 15 + longest_stop(said)
        while True:
            states = {name: each["ActiveState"] for name, each in said.items()}
            left = [name for name, state in states.items() if state not in ("inactive", "failed")]
            if not left:
                return
            if time.monotonic() > began + allowed:
                raise DeployError("stop", f"{' and '.join(left)} did not end", left[0])
            time.sleep(0.1)
            said = self.show(units)

    def stop_timeout(self, *units: str) -> float:
        """Return the longest stop timeout of the units, in seconds."""
        return longest_stop(self.show(units))

    def queue(self, path: str) -> int:
        """Return the number of connections waiting in a listening socket."""
        _, output, _ = self.run(["ss", "--no-header", "--unix", "--listening", f"src = {path}"])
        return sum(int(line.split()[2]) for line in output.splitlines() if line.split()[4] == path)

    def journal(self, unit: str, since: float, until: float) -> list[str]:
        """Return a unit's last journal lines in a time range."""
        self.run(["journalctl", "--sync"])
        # Gunicorn ends with 30 lines of traceback; the app's error is above them.
        options = ["--no-pager", "--output=cat", "--quiet", "--lines=200"]
        options += [f"--since=@{since:.3f}", f"--until=@{until + 0.5:.3f}"]
        _, output, _ = self.run(["journalctl", *options, f"--unit={unit}"])
        return output.splitlines()


def longest_stop(said: dict[str, dict[str, str]]) -> float:
    """Return the longest stop timeout of units, in seconds."""
    return max((seconds(each.get("TimeoutStopUSec", "")) for each in said.values()), default=0)


def seconds(text: str) -> float:
    """Convert a systemd time span, such as `1min 30s`, to seconds."""
    found = re.findall(r"([0-9.]+)(h|min|s|ms|us)\b", text)
    return sum(float(number) * UNITS[unit] for number, unit in found) if found else 90


def has_pending_job(said: dict[str, str]) -> bool:
    """Return whether a unit has a pending job other than an automatic restart."""
    if said.get("Job", "0") not in ("", "0"):
        return True
    moves = said["ActiveState"] in ("activating", "deactivating")
    return moves and said["SubState"] != "auto-restart"


def failure_reason(name: str, said: dict[str, str]) -> str:
    """Return why a unit is not running or starting; empty when it is."""
    state, result = said.get("ActiveState", ""), said.get("Result", "")
    why = f" ({result})" if result not in ("", "success") else ""
    if said.get("NRestarts", "0") not in ("", "0") or said.get("SubState") == "auto-restart":
        return f"{name} died{why}"
    if state == "failed":
        return f"{name} failed{why}"
    if state in ("inactive", "deactivating") and said.get("Job", "0") in ("", "0"):
        return f"{name} ended{why}" if state == "inactive" else f"{name} is ending{why}"
    return ""


def children(pid: str, proc: Path = Path("/proc")) -> set[str]:
    """Return the child processes of a process: Gunicorn's workers."""
    found: set[str] = set()
    for file in proc.glob(f"{pid}/task/*/children"):
        try:
            found |= set(file.read_text().split())
        except OSError:
            continue  # the process has ended
    return found


def is_sleeping(pid: str, proc: Path = Path("/proc")) -> bool:
    """Return whether a process sleeps, using neither CPU nor disk."""
    try:
        return (proc / pid / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False  # the process has ended


class IdleDetector:
    """Detects whether processes have finished starting.

    A process that still imports modules computes, or waits for CPU or disk. A working process
    sleeps at times, waiting for a job or the database.
    """

    LOOKS = 3  # consecutive checks, 0.1 seconds apart

    def __init__(self) -> None:
        """Start without observations."""
        self.looks = 0

    def of(self, pids: list[str]) -> bool:
        """Check once more; return whether all slept in each of the last checks."""
        self.looks = self.looks + 1 if all(is_sleeping(pid) for pid in pids) else 0
        return self.looks >= self.LOOKS or not pids


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        """Connect to the socket path given as host name."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


class Health:
    """The health check of an app."""

    def __init__(self, path: str, headers: dict[str, str], status: int, body: str) -> None:
        """Request `path`; healthy is an answer with `status` and a body that matches `body`."""
        self.path, self.headers, self.status, self.body = path, headers, status, body

    def ask(self, socket_path: str, patience: Callable[[], bool]) -> tuple[bool, str]:
        """Check a socket. Return whether the app is healthy, and its answer as text."""
        connection = UnixConnection(socket_path, timeout=10)
        try:
            connection.request("GET", self.path, headers=self.headers)
            while not select.select([connection.sock], [], [], 0.2)[0]:
                if not patience():
                    return False, f"GET {self.path}: no answer"
            answer = connection.getresponse()
            body = answer.read(100_000).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return False, f"GET {self.path}: {type(error).__name__}: {error}"
        finally:
            connection.close()
        where = f"to {answer.headers['Location']} " if answer.headers["Location"] else ""
        said = (
            f"GET {self.path}: {answer.status} {answer.reason} {where}{body.strip()[:300]}".strip()
        )
        if answer.status != self.status:
            return False, f"{said} (expected is {self.status})"
        if not re.search(self.body, body):
            return False, f"{said} (expected is a body with {self.body})"
        return True, said

    def warm(self, socket_path: str, paths: list[str], visitors: int) -> None:
        """Request each path with this many concurrent clients. The answers are ignored.

        Clients disconnect after the first chunk: some responses never end.
        """

        def visit(path: str) -> None:
            with suppress(OSError, http.client.HTTPException):
                connection = UnixConnection(socket_path, timeout=10)
                with closing(connection):
                    connection.request("GET", path, headers=self.headers)
                    connection.getresponse().read1()

        with ThreadPoolExecutor(max(1, visitors)) as pool:
            for path in paths:
                deque(pool.map(visit, [path] * visitors), maxlen=0)


class Deadline:
    """A time limit that runs a check on each call."""

    def __init__(self, length: float, look: Callable[[], None] = lambda: None) -> None:
        """Start a period of `length` seconds."""
        self.deadline, self.look = time.monotonic() + length, look

    def __call__(self) -> bool:
        """Run the check, and return whether to keep waiting."""
        self.look()
        return time.monotonic() < self.deadline


class Watch:
    """A web instance and background processes that must not change."""

    def __init__(self, units: Units, health: Health, patience: float = 10) -> None:
        """Check with `units` and `health`; an answer may take `patience` seconds."""
        self.units, self.health, self.patience = units, health, patience
        self.began = time.time()
        self.pids: dict[str, str] = {}  # main process of each unit
        self.workers: dict[str, set[str]] = {}
        self.gone: dict[str, set[str]] = {}  # workers that have ended
        self.asks: dict[str, int] = {}

    def look(self, step: str, names: Iterable[str]) -> None:
        """Raise DeployError when a unit no longer runs as in the last check."""
        for name, said in self.units.show(names).items():
            wrong, pid = failure_reason(name, said), said.get("MainPID", "0")
            if not wrong and self.pids.get(name, pid) != pid:
                wrong = f"{name} died"
            if not wrong and name in self.workers:
                wrong = self.lost(name, children(pid))
            if wrong:
                raise DeployError(step, wrong, name)

    def lost(self, name: str, workers: set[str]) -> str:
        """Return the failure of an instance's workers; a recycled worker is not a failure."""
        gone = self.workers[name] - workers
        self.workers[name] = workers
        if gone:
            self.gone.setdefault(name, set()).update(gone)
            self.asks[name] = 3  # checks: Gunicorn logs the reason a moment later
        if not self.asks.get(name):
            return ""
        self.asks[name] -= 1
        lines = self.units.journal(name, self.began, time.time())
        crashed = {pid for line in lines for pid in itertools.chain(*CRASH.findall(line))}
        crashed &= self.gone[name]
        return f"{name} lost {len(crashed)} of its workers" if crashed else ""

    def remember(self, *names: str, workers: bool = False) -> None:
        """Record the current processes of units."""
        for name, said in self.units.show(names).items():
            self.pids[name] = said.get("MainPID", "0")
            if workers:
                self.workers[name] = children(self.pids[name])

    def wait_healthy(self, step: str, unit: str, socket_path: str, timeout: float) -> str:
        """Wait until an instance is healthy; return its answer."""
        patience = Deadline(timeout, lambda: self.look(step, [unit]))
        while True:
            well, answer = self.health.ask(socket_path, patience)
            state = self.units.show([unit])[unit]
            if well and state["ActiveState"] == "active" and not failure_reason(unit, state):
                return answer
            if not well and REDIRECT.match(answer):
                raise DeployError(step, f"{unit} redirects the health path", unit, answer)
            if not patience():
                raise DeployError(step, f"{unit} was not well within {timeout:g} s", unit, answer)
            time.sleep(0.1)

    def wait_started(self, step: str, names: list[str]) -> None:
        """Wait until all units are (re)started; old processes may finish their work."""
        deadline = time.monotonic() + 30 + self.units.stop_timeout(*names)
        while True:
            said = self.units.show(names)
            waiting = [
                name
                for name, state in said.items()
                if state.get("Job", "0") not in ("", "0")
                or state["ActiveState"] in ("activating", "deactivating")
            ]
            broken = [name for name in said if name not in waiting]
            self.look(step, broken)
            for name in waiting:
                if said[name]["SubState"] == "auto-restart" and said[name].get("Job", "") in (
                    "",
                    "0",
                ):
                    raise DeployError(step, failure_reason(name, said[name]), name)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise DeployError(step, f"{waiting[0]} did not start", waiting[0])
            time.sleep(0.1)

    def stay_healthy(
        self,
        step: str,
        names: list[str],
        unit: str,
        socket_path: str,
        length: float,
        new: Sequence[str] = (),
        visitors: Thread | None = None,
    ) -> None:
        """Raise DeployError when a unit dies or the instance is unhealthy within `length` seconds.

        For units that are `new`, the watch lasts until they start working, at most 10 seconds: a
        failing import can take seconds on a busy machine. While there are `visitors`, the instance
        may be too busy to answer; its health is checked after they finish.
        """
        now = time.monotonic()
        end, last, next_question = now + length, now + max(length, 10), 0.0
        rest = IdleDetector()
        while True:
            now, busy = time.monotonic(), visitors is not None and visitors.is_alive()
            self.look(step, names)
            still = rest.of([self.pids[name] for name in new])
            done = not busy and now >= end and (still or now >= last)
            if done or (not busy and now >= next_question):
                well, answer = self.health.ask(socket_path, Deadline(self.patience))
                if not well:
                    self.look(step, names)
                    raise DeployError(step, f"{unit} was well and is not any more", unit, answer)
                next_question = time.monotonic() + 0.5
            if done:
                return
            time.sleep(0.1)
