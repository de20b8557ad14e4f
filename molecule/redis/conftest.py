"""Redis as the app's user meets it: through the socket, with a password."""

import os
import shlex
from pathlib import Path

import pytest


class Redis:
    """One instance on a host, asked through redis-cli there."""

    def __init__(self, host, name, password, app="shop"):
        self.host, self.app, self.password = host, app, password
        self.socket = f"/run/redis-{app}-{name}/redis.sock"
        self.unit = f"redis-server@{app}-{name}.service"

    def command(self, *arguments, user="", password=None, run_as=""):
        """Return a shell command that asks Redis."""
        asked = shlex.join(["redis-cli", "-s", self.socket, "--user", user or self.app, *arguments])
        return f"REDISCLI_AUTH={shlex.quote(password or self.password)} {run_as} {asked} 2>&1"

    def __call__(self, *arguments, feed="true", **options):
        """Return what redis-cli prints; `feed` is a shell command that prints commands for it."""
        answer = self.host.run(f"{feed} | {self.command(*arguments, **options)}")
        return "\n".join(line for line in answer.stdout.splitlines() if line)

    def info(self, key):
        """Return one value of INFO."""
        lines = self("INFO", "everything").splitlines()
        return dict(line.strip().split(":", 1) for line in lines if ":" in line)[key]

    @property
    def process(self):
        """The process's id as systemd knows it."""
        return int(
            self.host.check_output("systemctl show --property=MainPID --value %s", self.unit)
        )


@pytest.fixture
def secret():
    """Give `secret(name)`: a password that the play has made."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return lambda name: (folder / name).read_text().strip()


@pytest.fixture
def cache(host, secret):
    """The cache of the host."""
    return Redis(host, "cache", secret("cache"))


@pytest.fixture
def queue(host, secret):
    """The queue of the host."""
    return Redis(host, "queue", secret("queue"))


@pytest.fixture
def neighbour(host, secret):
    """The queue of another app on the host."""
    return Redis(host, "queue", secret("other_queue"), "other_shop")
