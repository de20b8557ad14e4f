"""A site under constant load, and the state of its app on the host."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing, contextmanager

import pytest

from helpers.clients import main_pid
from helpers.load import HEADINGS, Load
from helpers.wait import wait_for

# Requests per second; set LOAD_RATE lower on a busy machine.
RATE = float(os.environ.get("LOAD_RATE", "100"))
SUMMARIES = pytest.StashKey[list]()


class AppState:
    """The state of the app on the host."""

    def __init__(self, host):
        """Use testinfra's `host`."""
        self.host = host

    def __call__(self):
        """Return the active release, all releases and the running instances, as text.

        Wait until no instance is stopping, since a deploy does not wait for that.
        """
        command = (
            "cd /srv/sample && readlink current web.sock && ls -A releases instances environments"
            " && systemctl show --property=Id,ActiveState,MainPID"
            " $(systemctl list-units --plain --no-legend --all"
            " --state=active,activating,deactivating,failed 'sample-web@*.service'"
            " | cut --delimiter=' ' --fields=1)"
        )

        def settled():
            state = self.host.check_output(command)
            return "" if "deactivating" in state else state

        return wait_for(settled, 60)

    @property
    def release(self):
        """The active release."""
        return self.host.check_output("readlink /srv/sample/current").removeprefix("releases/")

    @property
    def instances(self):
        """The assigned slots and their releases."""
        links = self.host.check_output(
            "cd /srv/sample/instances && readlink -v * | xargs -n1 basename"
        )
        slots = self.host.check_output("ls /srv/sample/instances")
        return dict(zip(slots.split(), links.split(), strict=True))

    @property
    def only_active_runs(self):
        """Whether the only instance is that of the active release."""
        (slot, release), *others = self.instances.items()
        units = self.host.check_output("systemctl list-units --plain --no-legend 'sample-web@*'")
        running = sorted(line.split()[0] for line in units.splitlines())
        expected = [f"sample-web@{slot}.service", f"sample-web@{slot}.socket"]
        return not others and release == self.release and running == expected

    @property
    def worker(self):
        """The release that the worker runs."""
        pid = main_pid(self.host, "sample-worker@1.service")
        return self.host.check_output(f"readlink /proc/{pid}/cwd").rsplit("/", 1)[-1]

    @property
    def last_deploy(self):
        """The last record of the deploy history."""
        return json.loads(self.host.check_output("tail --lines=1 /srv/sample/deploys.jsonl"))

    @property
    def is_changing(self):
        """Whether a change of the active release has started and has not ended."""
        return self.host.file("/srv/sample/.deploying").exists

    def kill_deploy(self):
        """Kill the processes of a running deploy on the host."""
        locks = self.host.check_output("lslocks --noheadings --output PID,PATH")
        for line in locks.splitlines():
            pid, *path = line.split()
            if path == ["/srv/sample/.lock"]:
                self.host.run("kill -KILL %s", pid)


@pytest.fixture
def state(host):
    """Return the state of the app."""
    return AppState(host)


@pytest.fixture
def under_load(request, address, sql):
    """Return a context that runs constant load and asserts that no request or row is lost.

    `share` reduces the request rate, because failing deploys also need CPU time. `may_fail` is the
    number of requests that may fail. `longest` limits the response time in seconds, and is high
    enough for a busy machine; bench/deploy measures usual values.
    """

    @contextmanager
    def under_load(name, may_fail=0, longest=10, share=0.3):
        with Load(f"http://{address}", "localhost", share * RATE) as load, load.during(name):
            yield load
        bodies = [row[0] for row in sql.rows(f"USE sample; {load.statement}")]
        rows, summary = load.rows(bodies), load.summaries()[0]
        request.config.stash.setdefault(SUMMARIES, []).append(summary)
        print(load.report(), rows, sep="\n")
        assert len(load.failed) <= may_fail, load.failed[:20]
        assert (rows.lost, rows.doubled) == ([], [])
        assert len(rows.unacknowledged) <= may_fail
        assert rows.sent > 0
        slow = [answer for answer in load.answers if answer.latency > longest / 2]
        assert summary.longest < longest, slow

    return under_load


@pytest.fixture(scope="module")
def on_localhost(host, address):
    """Return a context in which the host's localhost forwards a port to this machine."""

    @contextmanager
    def on_localhost(port):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.connect((address, 9))
            here = probe.getsockname()[0]
        listen = f"--socket-property=ListenStream=127.0.0.1:{port}"
        proxy = f"/usr/lib/systemd/systemd-socket-proxyd {here}:{port}"
        host.check_output(f"systemd-run --unit=forward --collect {listen} {proxy}")
        yield
        host.check_output("systemctl stop 'forward.*'")

    return on_localhost


def pytest_terminal_summary(terminalreporter, config):
    """Print the latencies."""
    if summaries := config.stash.get(SUMMARIES, []):
        terminalreporter.section("latencies")
        for line in (HEADINGS, *summaries):
            terminalreporter.write_line(str(line))
