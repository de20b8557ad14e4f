"""An invalid site is not installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

testinfra_hosts = ["ansible://bookworm"]

CONVERGE = Path(__file__).parents[1] / "converge.yml"


def test_snippet_of_the_inventory_is_served(site):
    assert site.get("/ping").text == "pong"


def test_invalid_snippet_is_rejected_and_the_previous_site_stays(host, site):
    before = host.check_output("pgrep --uid www-data nginx")
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    broken = '{"nginx_site_snippets": ["listen nowhere on;"]}'
    run = subprocess.run(
        ["ansible-playbook", "-i", inventory, "-l", "bookworm", "-e", broken, CONVERGE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert "nowhere" in run.stdout + run.stderr
    assert site.get("/ping").text == "pong"
    assert host.check_output("pgrep --uid www-data nginx") == before
    # The installed configuration is still valid for the next boot.
    assert host.run("nginx -t").succeeded
