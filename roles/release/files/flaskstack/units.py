"""Control the app's systemd units, and check the app's health over its socket.

systemctl reports all units in one call. pystemd needs a call for each property, and python3-systemd
cannot control units.
"""

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
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from threading import Thread

from flaskstack.errors import DeployError

PROPERTIES = "Id,ActiveState,SubState,MainPID,NRestarts,Result,Job,TimeoutStopUSec"
SECONDS = {"h": 3600, "min": 60, "s": 1, "ms": 0.001, "us": 0.000001}

REDIRECT = re.compile(r"GET \S+: 30[12378] ")  # waiting does not change a redirect
# Gunicorn's messages about failed workers, but not about recycled ones.
CRASH = re.compile(
    r"Worker \(pid:(\d+)\) (?:was sent|exited with code)|WORKER TIMEOUT \(pid:(\d+)\)"
)
IDLE_CHECKS = 3  # a process has started once it sleeps in this many checks in a row, 0.1 s apart


def command(argv: list[str]) -> tuple[int, str, str]:
    """Run a program; return its exit code, output and errors."""
    result = subprocess.run(
        argv, capture_output=True, text=True, errors="replace", check=False, stdin=DEVNULL
    )
    return result.returncode, result.stdout, result.stderr


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
        return dict(zip(names, parse(output), strict=True))

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
        show = ["systemctl", "show", "--all", "--property=Id,ActiveState,Slice"]
        _, output, _ = self.run([*show, f"{app}-*.service", f"{app}-*.timer"])
        units, slices = parse(output), (f"{app}-processes.slice", f"{app}-timers.slice")
        services = {unit["Id"] for unit in units if unit.get("Slice") in slices}
        timers = {name.removesuffix(".service") + ".timer" for name in services}
        active = {unit["Id"] for unit in units if unit["ActiveState"] != "inactive"}
        return active & (services | timers)

    def reset_failed(self, *units: str) -> None:
        """Reset failed units. systemctl fails for units that are not loaded; they need no reset."""
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
        deadline = time.monotonic() + 15 + self.stop_timeout(*units)
        while running := [
            name
            for name, unit in self.show(units).items()
            if unit["ActiveState"] not in ("inactive", "failed")
        ]:
            if time.monotonic() > deadline:
                raise DeployError("stop", f"{' and '.join(running)} did not stop", running[0])
            time.sleep(0.1)

    def stop_timeout(self, *units: str) -> float:
        """Return the longest stop timeout of the units, in seconds."""
        spans = [unit.get("TimeoutStopUSec", "") for unit in self.show(units).values()]
        return max(map(seconds, spans), default=0)

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


def parse(output: str) -> list[dict[str, str]]:
    """Parse the output of systemctl show."""
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in output.strip().split("\n\n")
        if block
    ]


def seconds(text: str) -> float:
    """Convert a systemd time span, such as `1min 30s`, to seconds; 90 for infinity."""
    found = re.findall(r"([0-9.]+)(h|min|s|ms|us)\b", text)
    return sum(float(number) * SECONDS[unit] for number, unit in found) if found else 90


def has_job(unit: dict[str, str]) -> bool:
    """Return whether a unit has a pending job."""
    return unit.get("Job", "0") not in ("", "0")


def failure_reason(name: str, unit: dict[str, str]) -> str:
    """Return why a unit is not running or starting; empty when it is."""
    state, result = unit.get("ActiveState", ""), unit.get("Result", "")
    why = f" ({result})" if result not in ("", "success") else ""
    if unit.get("NRestarts", "0") not in ("", "0") or unit.get("SubState") == "auto-restart":
        return f"{name} died{why}"
    if state == "failed":
        return f"{name} failed{why}"
    if state in ("inactive", "deactivating") and not has_job(unit):
        return f"{name} ended{why}" if state == "inactive" else f"{name} is ending{why}"
    return ""


def children(pid: str) -> set[str]:
    """Return the child processes of a process: Gunicorn's workers."""
    found: set[str] = set()
    for file in Path("/proc").glob(f"{pid}/task/*/children"):
        with suppress(OSError):  # the process has ended
            found |= set(file.read_text().split())
    return found


def is_sleeping(pid: str) -> bool:
    """Return whether a process sleeps, using neither CPU nor disk.

    A process that still imports modules computes, or waits for CPU or disk. A working process
    sleeps at times, waiting for a job or the database.
    """
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False  # the process has ended


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        """Connect to the socket path given as host name."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


@dataclass
class Health:
    """A health check: a request and what a healthy app answers."""

    path: str
    headers: dict[str, str]
    status: int
    body: str  # regular expression

    def check(self, socket_path: str, keep_waiting: Callable[[], bool]) -> tuple[bool, str]:
        """Check a socket. Return whether the app is healthy, and its answer as text."""
        connection = UnixConnection(socket_path, timeout=10)
        try:
            connection.request("GET", self.path, headers=self.headers)
            while not select.select([connection.sock], [], [], 0.2)[0]:
                if not keep_waiting():
                    return False, f"GET {self.path}: no answer"
            answer = connection.getresponse()
            body = answer.read(100_000).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return False, f"GET {self.path}: {type(error).__name__}: {error}"
        finally:
            connection.close()
        where = f"to {answer.headers['Location']} " if answer.headers["Location"] else ""
        text = f"GET {self.path}: {answer.status} {answer.reason} {where}{body.strip()[:300]}"
        text = text.strip()
        if answer.status != self.status:
            return False, f"{text} (expected is {self.status})"
        if not re.search(self.body, body):
            return False, f"{text} (expected is a body with {self.body})"
        return True, text

    def warm_up(self, socket_path: str, paths: list[str], clients: int) -> None:
        """Request each path with this many concurrent clients. The answers are ignored.

        Clients disconnect after the first chunk: some responses never end.
        """

        def request(path: str) -> None:
            with suppress(OSError, http.client.HTTPException):
                connection = UnixConnection(socket_path, timeout=10)
                with closing(connection):
                    connection.request("GET", path, headers=self.headers)
                    connection.getresponse().read1()

        with ThreadPoolExecutor(max(1, clients)) as pool:
            for path in paths:
                deque(pool.map(request, [path] * clients), maxlen=0)


class Deadline:
    """A time limit that runs a check on each call."""

    def __init__(self, length: float, check: Callable[[], None] = lambda: None) -> None:
        """Start a period of `length` seconds."""
        self.deadline, self.check = time.monotonic() + length, check

    def __call__(self) -> bool:
        """Run the check, and return whether to keep waiting."""
        self.check()
        return time.monotonic() < self.deadline


class Watch:
    """Check that a web instance and background processes keep running."""

    def __init__(self, units: Units, health: Health, timeout: float = 10) -> None:
        """Use `units` and `health`. A new instance must be healthy within `timeout` seconds."""
        self.units, self.health, self.timeout = units, health, timeout
        self.started_at = time.time()
        self.pids: dict[str, str] = {}  # main process of each unit
        self.workers: dict[str, set[str]] = {}
        self.ended: dict[str, set[str]] = {}  # workers that have ended
        self.journal_reads: dict[str, int] = {}  # remaining, for each unit

    def check(self, step: str, names: Iterable[str]) -> None:
        """Raise DeployError when a unit no longer runs as in the last check."""
        for name, unit in self.units.show(names).items():
            reason, pid = failure_reason(name, unit), unit.get("MainPID", "0")
            if not reason and self.pids.get(name, pid) != pid:
                reason = f"{name} died"
            if not reason and name in self.workers:
                reason = self.lost_workers(name, children(pid))
            if reason:
                raise DeployError(step, reason, name)

    def lost_workers(self, name: str, workers: set[str]) -> str:
        """Return the failure of an instance's workers; a recycled worker is not a failure."""
        ended = self.workers[name] - workers
        self.workers[name] = workers
        if ended:
            self.ended.setdefault(name, set()).update(ended)
            self.journal_reads[name] = 3  # Gunicorn logs the reason a moment later
        if not self.journal_reads.get(name):
            return ""
        self.journal_reads[name] -= 1
        lines = self.units.journal(name, self.started_at, time.time())
        crashed = {pid for line in lines for pid in itertools.chain(*CRASH.findall(line))}
        crashed &= self.ended[name]
        return f"{name} lost {len(crashed)} of its workers" if crashed else ""

    def remember(self, *names: str, workers: bool = False) -> None:
        """Record the current processes of units."""
        for name, unit in self.units.show(names).items():
            self.pids[name] = unit.get("MainPID", "0")
            if workers:
                self.workers[name] = children(self.pids[name])

    def wait_healthy(self, step: str, unit: str, socket_path: str) -> str:
        """Wait until an instance is healthy; return its answer."""
        keep_waiting = Deadline(self.timeout, lambda: self.check(step, [unit]))
        while True:
            healthy, answer = self.health.check(socket_path, keep_waiting)
            state = self.units.show([unit])[unit]
            if healthy and state["ActiveState"] == "active" and not failure_reason(unit, state):
                return answer
            if not healthy and REDIRECT.match(answer):
                raise DeployError(step, f"{unit} redirects the health path", unit, answer)
            if not keep_waiting():
                reason = f"{unit} was not healthy within {self.timeout:g} s"
                raise DeployError(step, reason, unit, answer)
            time.sleep(0.1)

    def wait_started(self, step: str, names: Sequence[str]) -> None:
        """Wait until all units are (re)started; old processes may finish their work."""
        deadline = time.monotonic() + 30 + self.units.stop_timeout(*names)
        while True:
            units = self.units.show(names)
            waiting = []
            for name, unit in units.items():
                if unit["SubState"] == "auto-restart" and not has_job(unit):
                    raise DeployError(step, failure_reason(name, unit), name)
                if has_job(unit) or unit["ActiveState"] in ("activating", "deactivating"):
                    waiting.append(name)
            self.check(step, [name for name in units if name not in waiting])
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
        warm_up: Thread | None = None,
    ) -> None:
        """Raise DeployError when a unit dies or the instance is unhealthy within `length` seconds.

        For units that are `new`, the watch lasts until they start working, at most 10 seconds: a
        failing import can take seconds on a busy machine. During `warm_up`, the instance may be too
        busy to answer; its health is checked afterwards.
        """
        now = time.monotonic()
        end, last, next_check, idle_checks = now + length, now + max(length, 10), 0.0, 0
        while True:
            now, busy = time.monotonic(), warm_up is not None and warm_up.is_alive()
            self.check(step, names)
            idle = all(is_sleeping(self.pids[name]) for name in new)
            idle_checks = idle_checks + 1 if idle else 0
            working = not new or idle_checks >= IDLE_CHECKS
            finished = not busy and now >= end and (working or now >= last)
            if finished or (not busy and now >= next_check):
                # A busy host answers slowly, which must not cause a rollback.
                healthy, answer = self.health.check(socket_path, Deadline(max(10, self.timeout)))
                if not healthy:
                    self.check(step, names)
                    raise DeployError(step, f"{unit} is not healthy any more", unit, answer)
                next_check = time.monotonic() + 0.5
            if finished:
                return
            time.sleep(0.1)
