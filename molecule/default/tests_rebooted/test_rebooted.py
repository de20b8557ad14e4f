"""After a reboot the state of the host is restored, and the next deploy works."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from helpers import sysctl
from helpers.clients import live_web
from helpers.repository import ROOT
from helpers.wait import wait_for

STATE = (ROOT / "molecule/default/files/state.sh").read_text()


@pytest.fixture(scope="module")
def before():
    """Return the state before the reboot."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return json.loads((folder / "before_reboot.json").read_text())


@pytest.fixture(scope="module")
def up(host):
    """Wait until systemd has started all units."""
    return wait_for(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", 90)


@pytest.mark.usefixtures("up")
def test_the_site_responds(site):
    assert wait_for(lambda: site.get("/readyz").status_code == 200, 60)


@pytest.mark.usefixtures("up")
def test_units_directories_and_rules_are_restored(host, before):
    slot = live_web(host, "sample")
    units = {line for line in before["state"] if line.startswith("unit ")}
    named = [slot, slot.replace(".service", ".socket"), "sample-worker@1.service", "sample.target"]
    named += ["sample-scheduler@1.service", "redis-server@sample-cache.service", "nginx.service"]
    named += ["redis-server@sample-queue.service", "mariadb.service", "fail2ban.service"]
    assert {f"unit {name}" for name in named} <= units

    def differences():
        now = host.check_output(f"sh -s sample <<'STATE'\n{STATE}\nSTATE").splitlines()
        return set(before["state"]) ^ set(now)

    with suppress(AssertionError):
        wait_for(lambda: not differences(), 60)
    assert differences() == set()


@pytest.mark.usefixtures("up")
def test_no_unit_failed(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.usefixtures("up")
def test_a_form_opened_before_the_reboot_is_accepted(site, before):
    body = uuid.uuid4().hex
    form = {"csrf_token": before["token"], "author": "Ada", "body": body}
    headers = {"Cookie": before["cookie"], "Referer": "https://localhost/"}
    assert site.post("/notes", data=form, headers=headers).status_code == 303
    assert body in site.get("/").text


@pytest.mark.usefixtures("up")
def test_a_queued_job_is_done(diagnostics, before):
    wait_for(lambda: diagnostics("GET", before["job"]).json()["finished"] == 1, 60)


@pytest.mark.usefixtures("up")
def test_all_rows_are_kept(sql, before):
    newest, count, _ = before["notes"]
    assert int(count) > 0
    columns = "SELECT MAX(id), COUNT(*), SUM(CRC32(body)) FROM sample.notes"
    assert sql.rows(f"{columns} WHERE id <= {newest}") == [before["notes"]]


@pytest.mark.usefixtures("up")
def test_a_deploy_works(host, site, operator, version):
    before = host.file("/srv/sample/current").linked_to
    deploy = operator.deploy(version())
    assert deploy.code == 0, deploy.output
    assert host.file("/srv/sample/current").linked_to != before
    assert site.get("/readyz").status_code == 200


def test_network_settings_hold_on_every_interface(host):
    assert sysctl.wrong(host) == []
