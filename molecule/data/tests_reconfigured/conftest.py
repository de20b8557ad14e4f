"""Settings and passwords of the servers after reconfigure.yml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

APP, BACKGROUND, MIGRATION = "my_shop", "my_shop_jobs", "my_shop_migrate"


@pytest.fixture(scope="module")
def settings(host) -> dict[str, Any]:
    """Return the host's changed variables."""
    changed = yaml.safe_load((Path(__file__).parents[1] / "vars/reconfigured.yml").read_text())
    variables = host.ansible.get_variables()
    remote = host.backend.get_hostname() != "trixie"
    more = {"mysql_bind_address": "{{ ansible_host }}" if remote else ""}
    return variables | changed | more | {"packet": 82 if remote else 202}


@pytest.fixture(scope="module")
def passwords(generated) -> dict[str, str]:
    """Return the changed passwords."""
    return {
        user: generated(f"new_{name}")
        for user, name in ((APP, "app"), (BACKGROUND, "app"), (MIGRATION, "migration"))
    }
