"""The inventories and sites of five apps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from helpers.clients import Site
from helpers.operator import Done, Operator

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "examples"
DOMAINS = {
    "dice": "dice.example.com",
    "blog": "blog.example.com",
    "filedrop": "drop.example.com",
    "shop": "shop.example.org",
    "shop_libs": "libs.example.org",
}
HEALTH = {"shop": "/readyz", "shop_libs": "/healthz"}
# The state of the host and of all apps but shop_libs.
STATE = r"""
find /etc /usr/local /srv/shop -type f ! -path '*shop_libs*' \
  ! -path '*/environments/*' ! -regex '/etc/\(passwd\|shadow\|group\|gshadow\|subuid\|subgid\)-?' \
  -exec sha256sum {} + | sort -k 2
for unit in shop.target shop-worker@1 shop-scheduler@1 shop-web@a shop-web@b mariadb nginx \
  systemd-journald redis-server@shop-cache redis-server@shop-queue blog.target; do
  echo $unit $(systemctl show --property ActiveEnterTimestampMonotonic,ExecMainPID $unit)
done
mysql --batch --execute 'SHOW GLOBAL VARIABLES' | grep -E '^[a-z_]*(timeout|connections|size)\s'
mysql --batch --execute "SHOW GRANTS FOR shop@localhost; SHOW GRANTS FOR shop_migrate@localhost"
swapon --show; readlink /etc/localtime
"""


class App:
    """An app with its own inventory."""

    def __init__(self, name: str, address: str) -> None:
        """Use the inventory and source that converge.yml copied."""
        self.name = name
        self.inventory = FOLDER / "inventory" / name
        self.operator = Operator(str(self.inventory))
        self.source = FOLDER / "docs/examples" / name
        self.site = Site(address, DOMAINS[name])

    def run(self, playbook: str, *options: str, **variables: Any) -> Done:
        """Run one of the bundle's playbooks."""
        return self.operator.play(playbook, *options, **variables)

    def play(self, playbook: str, *options: str, **variables: Any) -> Done:
        """Run one of the bundle's playbooks, which must succeed."""
        result = self.run(playbook, *options, **variables)
        assert result.code == 0, result.output
        return result

    def deploy(self) -> Done:
        """Deploy a new version."""
        (self.source / "version.txt").write_text(f"{os.urandom(8).hex()}\n")
        return self.play("deploy")

    def secret(self, name: str) -> str:
        """Return a generated secret of this inventory."""
        return (self.inventory / f"secrets/{name}.txt").read_text().strip()

    @property
    def serves(self) -> bool:
        """Whether the app is healthy."""
        return self.site.get(HEALTH.get(self.name, "/")).status_code == 200


def app_fixture(name: str) -> Any:
    """Return a fixture that returns an app."""
    return pytest.fixture(name=name)(lambda address: App(name, address))


dice, blog, filedrop, shop, shop_libs = map(app_fixture, DOMAINS)


@pytest.fixture
def state(host):
    """Return a function that lists the state of the host and of all apps but shop_libs."""
    return lambda: host.check_output(STATE).splitlines()
