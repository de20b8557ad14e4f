"""Other stores: an append-only server that a compromised host cannot empty, and S3."""

from __future__ import annotations

import json

import pytest

PROGRAM = "/usr/local/lib/flaskstack/my_shop-backup"
FOLDER = "/etc/flaskstack/backup/my_shop"
STORED = "find /srv/append/site -type f -not -path '*/locks/*' -exec sha256sum {} + | sort -k 2"


@pytest.fixture
def change_store(hosts, operator):
    """Return a function that converges the site with another store, by the name of its variable."""

    def change_store(name):
        variables = {
            "backup_repository": f"{{{{ {name} }}}}",
            "backup_prune": name != "append_store",
        }
        options = ("--limit", "site,store", "--tags", "backup")
        done = operator.play("../molecule/backup/converge", *options, **variables)
        assert done.code == 0, done.output

    return change_store


@pytest.fixture
def attack(hosts):
    """Return a function that sends a request to the append-only server, with the site's key."""
    site = hosts["site"]
    address = hosts["store"].ansible.get_variables()["ansible_host"]
    options = f"-i {FOLDER}/ssh_key -o UserKnownHostsFile={FOLDER}/known_hosts -o BatchMode=yes"
    login = f"ssh {options} append@{address}"
    # A forced command ignores the arguments.
    command = f"{login} rclone serve restic --stdio /srv/append/site"
    listen = f"socat UNIX-LISTEN:/run/attack,fork EXEC:'{command}'"
    site.check_output(f'systemd-run --unit=attack sh -c "{listen}"')

    def attack(method, path):
        curl = "curl -s --retry 20 --retry-all-errors --retry-delay 1 -o /dev/null"
        curl += " -w '%{http_code}' --unix-socket /run/attack --http2-prior-knowledge"
        return site.check_output(f"{curl} -X {method} http://store/{path}")

    attack.login = login
    yield attack
    site.check_output("systemctl stop attack")


def test_a_host_cannot_remove_backups_from_an_append_only_store(hosts, change_store, attack):
    site, store = hosts["site"], hosts["store"]
    change_store("append_store")
    site.check_output("systemctl start my_shop-backup@run")
    site.check_output("systemctl stop my_shop-backup@ship.timer my_shop-backup@ship")
    before = store.check_output(STORED)
    paths = [line.split("/srv/append/site/")[1] for line in before.splitlines()]
    for kind in ("snapshots", "data", "index", "keys"):
        path = next(path for path in paths if path.startswith(kind))
        path = f"data/{path.rpartition('/')[2]}" if kind == "data" else path
        assert attack("GET", path) == "200"
        assert (attack("DELETE", path), attack("POST", path)) == ("403", "403")
    assert (attack("DELETE", "config"), attack("POST", "config")) == ("403", "403")
    for command in ("rm -rf /srv/append", "-s sftp"):
        site.run(f"timeout 5 {attack.login} {command} </dev/null")
    assert store.check_output(STORED) == before


def test_backups_go_to_s3(hosts, change_store):
    change_store("s3_store")
    site = hosts["site"]
    site.check_output("systemctl start my_shop-backup@run && systemctl start my_shop-backup@check")
    found = json.loads(site.check_output(f"python3 -I -B {PROGRAM} {FOLDER}/settings.json list"))
    assert found[-1]["parts"] == ["database", "queue", "files"]
