"""Generated secrets are only in their own files on the host, and not in the output of playbooks."""

from __future__ import annotations

import base64
import re
import secrets as random
from urllib.parse import quote

import pytest

from helpers.clients import children, live_web, main_pid
from helpers.wait import wait_for

testinfra_hosts = ["ansible://trixie"]  # its secrets were rotated
# All directories except those of programs and the kernel. Secrets belong only below KEPT.
PLACES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"
KEPT = ("/etc/sample/", "/run/credentials/")
SEARCH = r"""
find %(places)s -xdev -type f ! -name secrets-sought -print0 | xargs -0 -r grep -lFaf %(sought)s --
journalctl --no-pager --all --output=export | grep -cFaf %(sought)s | sed "s/^/journal /"
for file in /proc/[0-9]*/cmdline; do
  tr '\0' '\n' <"$file" 2>/dev/null | grep -qFaf %(sought)s && echo "$file"
done
true
"""


def forms(secret):
    """Return the forms of a secret: plain, in a URL, and in base64 at any offset."""
    found = {secret, quote(secret, safe="")}
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + secret.encode()).decode()
        # The first and last characters depend on the adjacent bytes.
        found.add(coded[4 if shift else 0 : len(coded) - 4])
    return found


@pytest.fixture
def found_on(host, tmp_path):
    """Return a function that returns the places on the host that contain secrets, in any form."""

    def search(secrets):
        sought = tmp_path / "secrets-sought"
        lines = (f"{text}\n" for secret in secrets for text in sorted(forms(secret)))
        sought.write_text("".join(lines))
        target = "/root/secrets-sought"
        host.ansible("copy", f"src={sought} dest={target} mode=0600", check=False, become=True)
        try:
            output = host.check_output(SEARCH % {"places": PLACES, "sought": target})
        finally:
            host.check_output("rm -f %s", target)
        lines = [line for line in output.splitlines() if line != "journal 0"]
        return [line for line in lines if not line.startswith(KEPT)]

    return search


def test_every_secret_has_enough_entropy(read_secrets):
    secrets = read_secrets()
    assert {"database", "migration", "cache", "queue", "secret_key"} <= secrets.keys()
    for name, value in secrets.items():
        assert re.fullmatch("[A-Za-z0-9]{40}", value), name
        assert len(set(value)) >= 12, name  # about 30 of 40 random characters are distinct
    assert len(set(secrets.values())) == len(secrets)


def test_the_search_finds_planted_secrets(host, found_on):
    """Control for the tests below, in which the search must find nothing."""
    planted = random.token_urlsafe(30)
    coded = base64.b64encode(f"user:{planted}@host".encode()).decode()
    host.check_output("logger --tag planted %s", f"it is {planted}, plain")
    host.check_output("printf %%s %s >/tmp/planted", f"Authorization: Basic {coded}")
    host.check_output("printf %%s %s >/var/backups/planted.sql", f"IDENTIFIED BY '{planted}'")
    host.check_output("systemd-run --quiet --unit planted sh -c 'sleep 300' %s", planted)
    try:
        where = found_on([planted])
    finally:
        host.check_output("systemctl stop planted; rm -f /tmp/planted /var/backups/planted.sql")
    assert {"/tmp/planted", "/var/backups/planted.sql"} <= set(where)
    assert [line for line in where if line.startswith("journal ")]
    assert [line for line in where if line.startswith("/proc/")]


def test_no_secret_is_in_output_log_or_facts_of_playbooks(
    operator, version, read_secrets, tmp_path, monkeypatch
):
    """Output with -vvv and --diff, log, cached facts and temporary files."""
    log, facts, temporary = (tmp_path / name for name in ("ansible.log", "facts", "temporary"))
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(log))
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN", "jsonfile")
    monkeypatch.setenv("ANSIBLE_CACHE_PLUGIN_CONNECTION", str(facts))
    monkeypatch.setenv("ANSIBLE_LOCAL_TEMP", str(temporary))
    done = operator.play(
        "../site",
        "-vvv",
        "--diff",
        app_source_folder=str(version()),
        app_environment={"SCHEDULER_INTERVAL": "11"},  # so that the environment file changes
        redis_cache_maxmemory=61,
    )
    assert done.code == 0, done.output[-3000:]
    files = [log, *facts.iterdir(), *(path for path in temporary.rglob("*") if path.is_file())]
    assert len(files) > 1
    text = "\n".join([done.output, *(path.read_text(errors="replace") for path in files)])
    shown = {name for name, value in read_secrets().items() if any(f in text for f in forms(value))}
    assert shown == set()


def test_a_crash_writes_no_core_dump(host):
    """A core dump contains the secrets of the process."""
    limits = host.check_output(
        "for pid in $(pgrep --uid sample; pgrep --uid sample-redis; pgrep --uid mysql); do"
        " grep '^Max core file size' /proc/$pid/limits; done"
    ).splitlines()
    assert len(limits) >= 5
    assert {tuple(line.split()[4:6]) for line in limits} == {("0", "0")}
    worker = children(host, main_pid(host, live_web(host, "sample")))[0]
    host.check_output(f"kill -SEGV {worker}")
    wait_for(lambda: host.run(f"test ! -e /proc/{worker}").rc == 0, 30)
    assert host.check_output("find / -xdev -name 'core*' -size +1M -newermt '-2 min' -type f") == ""


def test_no_secret_is_in_other_places_on_the_host(read_secrets, found_on):
    """Files, journal and arguments, after all other tests of the host."""
    assert found_on(read_secrets().values()) == []
