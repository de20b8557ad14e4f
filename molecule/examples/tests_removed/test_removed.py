"""One of three apps was removed: nothing of it is left but what was kept of its data."""

from __future__ import annotations

import pytest
import requests


def test_nothing_of_it_is_left(host):
    places = "/etc /srv /run /var /usr/local /home /root /tmp /opt"
    logs = r"-path /var/backups/filedrop -prune -o -path /var/log/journal -prune -o"
    assert host.check_output(f"find {places} {logs} -name '*filedrop*' -print") == ""
    # Files that end in a dash are how passwd and group were before.
    grep = "grep --recursive --files-with-matches --exclude='*-' filedrop"
    mentions = host.run(f"{grep} /etc /srv /usr/local")
    assert mentions.stdout == ""
    assert not host.user("filedrop").exists
    assert not host.group("filedrop").exists
    assert host.check_output("systemctl list-units --all --plain --no-legend '*filedrop*'") == ""
    assert host.run("pgrep --full [f]iledrop").stdout == ""
    assert host.check_output("find / -xdev -nouser -o -xdev -nogroup") == ""


def test_its_site_is_gone(filedrop):
    with pytest.raises(requests.ConnectionError):
        filedrop.site.get("/")


def test_its_files_are_kept(host):
    kept = host.check_output("tar --list --file /var/backups/filedrop/*.tar*")
    assert "uploads/" in kept


def test_the_others_answer(dice, blog):
    assert dice.site.get("/").status_code == 200
    assert blog.site.get("/").status_code == 200


def test_another_is_converged_already(blog):
    done = blog.play("site.yml", "--skip-tags=access")
    assert done.changed == 0
    assert "Nothing new" in done.output
    assert "[WARNING]" not in done.output
