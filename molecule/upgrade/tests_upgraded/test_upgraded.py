"""After the upgrade, `site.yml` brings back the site with all of its data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers.repository import ROOT
from helpers.wait import wait_for

SITE = (str(ROOT / "site.yml"), "--skip-tags", "access")


@pytest.fixture(scope="module")
def before():
    """Return the state before the upgrade."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return json.loads((folder / "before_upgrade.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def converged(host, operator):
    """Run the documented steps after the reboot."""
    done = operator.play(*SITE)
    assert done.code == 0, done.output
    host.check_output("flaskstack sample maintenance off")


def test_host_and_app_use_the_new_release(host):
    assert host.check_output("cat /etc/debian_version").startswith("13.")
    python = host.check_output("/srv/sample/current/.venv/bin/python --version")
    assert python == host.check_output("/usr/bin/python3 --version")
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_the_database_is_upgraded_and_complete(host, site, sql, before):
    statement = "SELECT MAX(id), COUNT(*), SUM(CRC32(body)) FROM sample.notes"
    assert sql.rows(statement) == [before["notes"]]
    upgraded = host.check_output("cat /var/lib/mysql/mariadb_upgrade_info")
    assert upgraded.startswith(sql.variable("version").partition("-")[0])
    assert site.get("/readyz").status_code == 200


def test_files_and_jobs_are_kept(host, site, environment, before):
    assert host.check_output("cat /var/lib/sample/kept") == "kept"
    key = {"X-Api-Key": environment["DIAGNOSTICS_KEY"]}
    wait_for(lambda: site.get(before["job"], headers=key).json()["finished"] == 1, 60)


def test_a_second_run_changes_nothing(operator):
    done = operator.play(*SITE)
    assert (done.code, done.changed) == (0, 0), done.output
