"""Backups of MySQL: its tools, GTIDs and replication. Scenario backup has MariaDB."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

from helpers.wait import wait_for

testinfra_hosts = ["ansible://sid"]

PROGRAM = "python3 -I -B /usr/local/lib/flaskstack/my_shop-backup"
SETTINGS = "/etc/flaskstack/backup/my_shop/settings.json"


def test_mysql_is_restored_to_a_moment_beside(host):
    def rows(database):
        return host.check_output(f"mysql -Ne 'SELECT id FROM {database}.kept ORDER BY id'").split()

    host.check_output("mysql my_shop -e 'CREATE TABLE kept (id INT PRIMARY KEY)'")
    host.check_output("mysql my_shop -e 'INSERT INTO kept VALUES (1)'")
    host.check_output("systemctl start my_shop-backup@run")
    host.check_output("mysql my_shop -e 'INSERT INTO kept VALUES (2)'")
    moment = int(time.time()) + 1
    wait_for(lambda: time.time() >= moment)
    host.check_output("mysql my_shop -e 'INSERT INTO kept VALUES (3)'")
    to = datetime.fromtimestamp(moment, UTC).isoformat()
    command = f"{PROGRAM} {SETTINGS} restore --to {to} --as beside --apply"
    done = json.loads(host.check_output(command))
    assert done["end"]["transaction"]
    assert rows("beside") == ["1", "2"]
    host.check_output("mysql -e 'DROP DATABASE beside'")
    host.check_output("systemctl start my_shop-backup@drill my_shop-backup@check")
    (found,) = json.loads(host.check_output(f"{PROGRAM} {SETTINGS} list"))
    assert found["parts"] == ["database"]
    assert found["to"] > moment
    assert host.file("/var/lib/mysql-files/my_shop-restore").exists is False
