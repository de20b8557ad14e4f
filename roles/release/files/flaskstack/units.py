"""The units of an app under systemd, and the app asked over its socket."""

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

REDIRECT = re.compile(r"GET \S+: 30[12378] ")  # no app stops redirecting once it is up
# What Gunicorn says of a worker that did not end by itself, as one does that is recycled.
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
    """systemctl, with what is asked of it here."""

    def __init__(self, run: Callable[[list[str]], tuple[int, str, str]] = command) -> None:
        """Run commands with `run`, which returns code, output and errors."""
        self.run = run

    def show(self, units: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return what systemd says of each unit."""
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
        """Give systemd a job without waiting for its end."""
        if units:
            code, _, errors = self.run(["systemctl", "--no-block", verb, *units])
            if code:
                raise DeployError(verb, f"systemctl {verb} {' '.join(units)}: {errors.strip()}")

    def start(self, *units: str) -> None:
        """Start units, also those that failed too often before."""
        self.reset_failed(*units)
        self.systemctl("start", *units)

    def restart(self, *units: str) -> None:
        """Restart units, also those that failed too often before."""
        self.reset_failed(*units)
        self.systemctl("restart", *units)

    def stop(self, *units: str) -> None:
        """Stop units, and wait until they have finished what they do."""
        if units:
            self.run(["systemctl", "stop", *units])
            self.reset_failed(*units)

    def reload(self) -> None:
        """Have systemd read all unit files anew."""
        self.run(["systemctl", "daemon-reload"])

    def enable(self, unit: str) -> None:
        """Have a unit start at boot."""
        if self.run(["systemctl", "is-enabled", "--quiet", unit])[0]:
            self.run(["systemctl", "enable", "--quiet", unit])

    def processes(self, app: str) -> set[str]:
        """Return the services and timers of an app's background processes that are not inactive."""
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
        """Forget failures of units. Of one that is not loaded there is nothing to forget."""
        if units:
            self.run(["systemctl", "reset-failed", *units])

    def kill(self, *units: str) -> None:
        """End units that nobody waits for."""
        self.run(["systemctl", "--no-block", "stop", *units])
        self.run(["systemctl", "kill", "--signal=KILL", *units])
        self.wait_stopped(*units)
        self.reset_failed(*units)

    def wait_stopped(self, *units: str) -> None:
        """Wait until units have ended; they get as long as their own settings give them."""
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
        """Return the seconds that the slowest of the units may take to stop."""
        return longest_stop(self.show(units))

    def queue(self, path: str) -> int:
        """Return how many connections wait in a listening socket."""
        _, output, _ = self.run(["ss", "--no-header", "--unix", "--listening", f"src = {path}"])
        return sum(int(line.split()[2]) for line in output.splitlines() if line.split()[4] == path)

    def journal(self, unit: str, since: float, until: float) -> list[str]:
        """Return the last lines that a unit wrote to the journal in a time."""
        self.run(["journalctl", "--sync"])
        # Gunicorn's last words are 30 lines of traceback; why the app does not start is above them.
        options = ["--no-pager", "--output=cat", "--quiet", "--lines=200"]
        options += [f"--since=@{since:.3f}", f"--until=@{until + 0.5:.3f}"]
        _, output, _ = self.run(["journalctl", *options, f"--unit={unit}"])
        return output.splitlines()


def longest_stop(said: dict[str, dict[str, str]]) -> float:
    """Return the seconds that the slowest of some units may take to stop."""
    return max((seconds(each.get("TimeoutStopUSec", "")) for each in said.values()), default=0)


def seconds(text: str) -> float:
    """Return a time span of systemd's, such as `1min 30s`, in seconds."""
    found = re.findall(r"([0-9.]+)(h|min|s|ms|us)\b", text)
    return sum(float(number) * UNITS[unit] for number, unit in found) if found else 90


def has_pending_job(said: dict[str, str]) -> bool:
    """Say whether systemd is at work on a unit, other than to start it once more."""
    if said.get("Job", "0") not in ("", "0"):
        return True
    moves = said["ActiveState"] in ("activating", "deactivating")
    return moves and said["SubState"] != "auto-restart"


def failure_reason(name: str, said: dict[str, str]) -> str:
    """Say what is wrong with a unit that should run, or is about to; empty when nothing is."""
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
    """Return the processes that a process has started: Gunicorn's workers."""
    found: set[str] = set()
    for file in proc.glob(f"{pid}/task/*/children"):
        try:
            found |= set(file.read_text().split())
        except OSError:
            continue  # it has ended
    return found


def is_sleeping(pid: str, proc: Path = Path("/proc")) -> bool:
    """Say whether a process waits for something: no CPU, nor the disk."""
    try:
        return (proc / pid / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False  # it has ended


class IdleDetector:
    """Says whether processes have begun to work.

    One that imports what it is made of computes, or waits for a CPU or the disk. One that works
    sleeps in between, however busy: until there is a job, or the database answers.
    """

    LOOKS = 3  # in a row, a tenth of a second apart

    def __init__(self) -> None:
        """Begin to look."""
        self.looks = 0

    def of(self, pids: list[str]) -> bool:
        """Look once more, and say whether all slept at each of the last looks."""
        self.looks = self.looks + 1 if all(is_sleeping(pid) for pid in pids) else 0
        return self.looks >= self.LOOKS or not pids


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def connect(self) -> None:
        """Connect to the socket that the host's name stands for."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


class Health:
    """The question whether an app is well."""

    def __init__(self, path: str, headers: dict[str, str], status: int, body: str) -> None:
        """Ask for `path`; well is an answer of `status` whose body matches `body`."""
        self.path, self.headers, self.status, self.body = path, headers, status, body

    def ask(self, socket_path: str, patience: Callable[[], bool]) -> tuple[bool, str]:
        """Ask at a socket. Return whether the app is well, and its answer for people."""
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
        """Have so many visitors ask for each path at once. What they get is not looked at.

        They leave with the first piece of an answer: some have no end.
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
    """Says whether there is time left; meanwhile it looks."""

    def __init__(self, length: float, look: Callable[[], None] = lambda: None) -> None:
        """Begin to wait for `length` seconds."""
        self.deadline, self.look = time.monotonic() + length, look

    def __call__(self) -> bool:
        """Look, and say whether to wait on."""
        self.look()
        return time.monotonic() < self.deadline


class Watch:
    """A web instance and background processes that must stay as they are."""

    def __init__(self, units: Units, health: Health, patience: float = 10) -> None:
        """Look with `units` and ask with `health`; an answer may take `patience` seconds."""
        self.units, self.health, self.patience = units, health, patience
        self.began = time.time()
        self.pids: dict[str, str] = {}  # of each unit its main process
        self.workers: dict[str, set[str]] = {}
        self.gone: dict[str, set[str]] = {}  # workers that have ended
        self.asks: dict[str, int] = {}

    def look(self, step: str, names: Iterable[str]) -> None:
        """Fail when a unit does not run as it did at the last look."""
        for name, said in self.units.show(names).items():
            wrong, pid = failure_reason(name, said), said.get("MainPID", "0")
            if not wrong and self.pids.get(name, pid) != pid:
                wrong = f"{name} died"
            if not wrong and name in self.workers:
                wrong = self.lost(name, children(pid))
            if wrong:
                raise DeployError(step, wrong, name)

    def lost(self, name: str, workers: set[str]) -> str:
        """Return what is wrong with an instance's workers: one that is recycled is no failure."""
        gone = self.workers[name] - workers
        self.workers[name] = workers
        if gone:
            self.gone.setdefault(name, set()).update(gone)
            self.asks[name] = 3  # looks: Gunicorn writes it down a moment later
        if not self.asks.get(name):
            return ""
        self.asks[name] -= 1
        lines = self.units.journal(name, self.began, time.time())
        crashed = {pid for line in lines for pid in itertools.chain(*CRASH.findall(line))}
        crashed &= self.gone[name]
        return f"{name} lost {len(crashed)} of its workers" if crashed else ""

    def remember(self, *names: str, workers: bool = False) -> None:
        """Keep which processes the units are made of now."""
        for name, said in self.units.show(names).items():
            self.pids[name] = said.get("MainPID", "0")
            if workers:
                self.workers[name] = children(self.pids[name])

    def wait_healthy(self, step: str, unit: str, socket_path: str, timeout: float) -> str:
        """Wait until an instance answers that it is well; return the answer."""
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
        """Wait until all units have been (re)started; old ones may finish what they do."""
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
        """Fail when a unit dies or the instance is not well within the next `length` seconds.

        Of units that are `new` no more is said before they have begun to work, or 10 seconds have
        gone: one that dies of an import lives as long as that takes, which on a busy machine is
        seconds. While there are `visitors` the instance may be too busy to answer; it is asked when
        they have left.
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
