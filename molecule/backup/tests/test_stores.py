"""Other stores: an append-only server that a compromised host cannot empty, and S3."""

from __future__ import annotations

import json
import shlex

import pytest

PROGRAM = "/usr/local/lib/flaskstack/my_shop-backup.py"
SETTINGS = "/etc/flaskstack/backup/my_shop/settings.json"


@pytest.fixture
def change_store(hosts, operator):
    """Return a function that converges the site with another store, by the name of its variable."""

    def change_store(name):
        variables = {
            "backup_repository": f"{{{{ {name} }}}}",
            "backup_prune": name != "append_store",
        }
        done = operator.play("../molecule/backup/converge", "--limit", "site,store", **variables)
        assert done.code == 0, done.output

    yield change_store
    change_store("sftp_store")


def restic(host, *arguments):
    """Run restic on the site with the settings of the role, like someone who has taken it over."""
    settings = json.loads(host.check_output(f"cat {SETTINGS}"))
    variables = [f"{name}={value}" for name, value in settings["environment"].items()]
    return host.run(shlex.join(["env", *variables, "restic", *settings["repository"], *arguments]))


def test_a_host_cannot_remove_backups_from_an_append_only_store(hosts, change_store):
    site, store = hosts["site"], hosts["store"]
    change_store("append_store")
    site.check_output("systemctl start my_shop-backup@run")
    before = store.check_output(
        "find /srv/append/site/snapshots /srv/append/site/data -type f | sort"
    )
    for attack in (["forget", "latest"], ["prune", "--max-unused=0"], ["key", "remove", "x"]):
        assert restic(site, *attack).rc != 0
    for command in ("rm -rf /srv/append", "sh"):
        key = "/etc/flaskstack/backup/my_shop/ssh_key"
        hosts_file = "/etc/flaskstack/backup/my_shop/known_hosts"
        address = store.ansible.get_variables()["ansible_host"]
        options = f"-i {key} -o UserKnownHostsFile={hosts_file} -o BatchMode=yes"
        site.run(f"timeout 5 ssh {options} append@{address} {command} </dev/null")
    after = store.check_output(
        "find /srv/append/site/snapshots /srv/append/site/data -type f | sort"
    )
    assert set(before.split()) <= set(after.split())


def test_backups_go_to_s3(hosts, change_store):
    change_store("s3_store")
    hosts["site"].check_output("systemctl start my_shop-backup@run my_shop-backup@check")
    found = json.loads(hosts["site"].check_output(f"python3 -I {PROGRAM} {SETTINGS} list"))
    assert found[-1]["parts"] == ["database", "queue", "files"]
