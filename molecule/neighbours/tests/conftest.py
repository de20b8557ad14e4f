"""Two inventories for one host, run as their users would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asking import Site
from deploying import Operator

INVENTORIES = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "inventories")

# What another app's inventory must leave as it is: the app's own, and the host's.
STATE = r"""
find /etc /usr/local /srv/shop -type f ! -path '*blog_2*' \
  ! -path '*/environments/*' ! -regex '/etc/\(passwd\|shadow\|group\|gshadow\|subuid\|subgid\)-?' \
  -exec sha256sum {} + | sort -k 2
for unit in shop.target shop-worker@1 shop-scheduler@1 shop-web@a shop-web@b mariadb nginx \
  systemd-journald redis-server@shop-cache redis-server@shop-queue; do
  echo $unit $(systemctl show --property ActiveEnterTimestampMonotonic,ExecMainPID $unit)
done
mysql --batch --execute 'SHOW GLOBAL VARIABLES' | grep -E '^[a-z_]*(timeout|connections|size)\s'
mysql --batch --execute "SHOW GRANTS FOR shop@localhost; SHOW GRANTS FOR shop_migrate@localhost"
swapon --show; readlink /etc/localtime
"""


@pytest.fixture
def run():
    """Give `run(app, playbook, **variables)`: the playbook's result on that app's inventory."""

    def run(app, playbook, *options, **variables):
        return Operator(str(INVENTORIES / app)).play(playbook, *options, **variables)

    return run


@pytest.fixture
def state(host):
    """Give `state()`: the lines that describe app shop and what the host shares."""
    return lambda: host.check_output(STATE).splitlines()


@pytest.fixture
def serves(address):
    """Give `serves(app)`: whether its site is ready."""

    def serves(app):
        name = app.replace("_", "-") + ".example.org"
        return Site(address, name).get("/readyz").status_code == 200

    return serves
