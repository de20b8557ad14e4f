"""A site under constant load, an operator who deploys, and the state of the host."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager

import pytest

from helpers.clients import main_pid
from helpers.load import HEADINGS, Load
from helpers.wait import wait_for

# Requests per second; fewer on a busy machine.
RATE = float(os.environ.get("LOAD_RATE", "100"))
PHASES = pytest.StashKey[list]()


class Home:
    """The app's directory and units on the host."""

    def __init__(self, host):
        """Use testinfra's `host`."""
        self.host = host

    def __call__(self):
        """Return the active release, all releases and the running processes.

        The result is equal when nothing changed. A deploy does not wait for the instance that it
        stops, so this does.
        """

        def settled():
            found = self.look()
            return found if "deactivating" not in found else ""

        return wait_for(settled, 60)

    def look(self):
        """Return the current state without waiting."""
        return self.host.check_output(
            "cd /srv/sample && readlink current web.sock && ls -A releases instances environments"
            " && systemctl show --property=Id,ActiveState,MainPID"
            " $(systemctl list-units --plain --no-legend --all"
            " --state=active,activating,deactivating,failed 'sample-web@*.service'"
            " | cut --delimiter=' ' --fields=1)"
        )

    @property
    def release(self):
        """The active release."""
        return self.host.check_output("readlink /srv/sample/current").removeprefix("releases/")

    @property
    def instances(self):
        """The active slots and their releases."""
        found = self.host.check_output(
            "cd /srv/sample/instances && readlink -v * | xargs -n1 basename"
        )
        slots = self.host.check_output("ls /srv/sample/instances").split()
        return dict(zip(slots, found.split(), strict=True))

    @property
    def worker(self):
        """The release of the background process."""
        pid = main_pid(self.host, "sample-worker@1.service")
        return self.host.check_output(f"readlink /proc/{pid}/cwd").rsplit("/", 1)[-1]

    @property
    def last(self):
        """The last deploy in the history."""
        return json.loads(self.host.check_output("tail --lines=1 /srv/sample/deploys.jsonl"))

    def end_what_deploys(self):
        """Kill the processes of a running deploy on the host."""
        locks = "lslocks --noheadings --output PID,PATH"
        for line in self.host.check_output(locks).splitlines():
            pid, *path = line.split()
            if path == ["/srv/sample/.lock"]:
                self.host.run("kill -KILL %s", pid)

    @property
    def under_way(self):
        """Whether a deploy has started to change the active release and has not ended."""
        return self.host.file("/srv/sample/.deploying").exists


@pytest.fixture
def home(host):
    """Return the app's directory and units on the host."""
    return Home(host)


@pytest.fixture(scope="session")
def quiet(request):
    """Return a function that measures the site's latencies without a deploy."""
    found = []

    def quiet(address):
        if not found:
            with Load(f"http://{address}", "localhost", RATE) as load:
                wait_for(lambda: load.now() > 5, 60)
            found.append(load.summaries()[-1])
            request.config.stash.setdefault(PHASES, []).append(load.summaries()[-1])
        return found[0]

    return quiet


@pytest.fixture
def under_load(request, address, sql, quiet):
    """Return a context that runs constant load and asserts that no request or row is lost.

    `share` reduces the request rate, because the many failing deploys also need CPU time. `held` is
    the number of requests that may fail. `longest` is the longest accepted answer in seconds on a
    busy machine; bench/deploy measures the usual values.
    """

    @contextmanager
    def under_load(name, held=0, longest=5, share=0.3):
        before = quiet(address)
        with Load(f"http://{address}", "localhost", share * RATE) as load, load.during(name):
            yield load
        bodies = [row[0] for row in sql.rows(f"USE sample; {load.statement}")]
        rows, all_of_it = load.rows(bodies), load.summaries()[0]
        request.config.stash[PHASES].append(all_of_it)
        print(load.report(), rows, sep="\n")
        assert len(load.failed) <= held, load.failed[:20]
        assert (rows.lost, rows.doubled) == ([], [])
        assert len(rows.unacknowledged) <= held
        assert rows.sent > 0
        assert all_of_it.longest < max(longest, 20 * before.p99)

    return under_load


def pytest_terminal_summary(terminalreporter, config):
    """Print the latencies."""
    if lines := config.stash.get(PHASES, []):
        terminalreporter.section("latencies")
        for line in (HEADINGS, *lines):
            terminalreporter.write_line(str(line))
