"""Who may log in, how, and that nobody is locked out by a change of that."""

import re
import subprocess

import pytest

from repository import ROOT

testinfra_hosts = ["ansible://site", "ansible://data"]

KEY = ROOT / ".local/ssh/id_ed25519"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFUUMvBf5c5Jcu6zjFPlz60luPQw5PkktQG/OLp/5Tm5"


@pytest.fixture
def login(host):
    """Give `login(user, *options)`: what `ssh` says, and whether it got in."""
    settings = host.ansible.get_variables()
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]
    options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    key = ["-i", str(KEY)]

    def login(user, *more, command="id -un", agent=()):
        return subprocess.run(
            [*agent, "ssh", *more, *options, *key, f"{user}@{settings['ansible_host']}", command],
            capture_output=True,
            text=True,
            check=False,
        )

    return login


def test_keys_get_in(login):
    for user in ("deploy", "anna"):
        assert login(user).stdout == f"{user}\n"


def test_passwords_are_not_even_asked_for(host, login):
    host.check_output("echo deploy:Correct-horse-7-battery | chpasswd")
    try:
        tried = login("deploy", "-o", "PubkeyAuthentication=no")
    finally:
        host.check_output("usermod --password '*' deploy")
    assert tried.returncode == 255
    assert "Permission denied (publickey)." in tried.stderr


def test_root_gets_in_by_key_where_the_inventory_says_so_and_only_there(login, name):
    tried = login("root")
    if name == "data":
        assert tried.stdout == "root\n"
    else:
        assert "Permission denied (publickey)." in tried.stderr


def test_sudo_is_for_those_who_have_it(login):
    assert login("deploy", command="sudo -n id -un").stdout == "root\n"
    assert login("anna", command="sudo -n id -un").returncode != 0


def test_nothing_is_forwarded(host, login):
    address = host.ansible.get_variables()["ansible_host"]
    jumped = login("deploy", "-o", "LogLevel=INFO", "-W", f"{address}:22")
    assert "administratively prohibited" in jumped.stderr
    assert "SSH_AUTH_SOCK" not in login("deploy", "-A", command="env", agent=["ssh-agent"]).stdout


def test_an_audit_finds_nothing(host):
    address = host.ansible.get_variables()["ansible_host"]
    found = subprocess.run(
        ["ssh-audit", "--skip-rate-test", "--no-colors", "--level=warn", address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout
    assert not re.search(r"\[(fail|warn)\]", found.stdout), found.stdout


def test_the_newest_key_exchange_that_the_host_has_is_in_use(host):
    known = host.check_output("ssh -Q kex").splitlines()
    offered = host.check_output("sshd -T | grep -i ^kexalgorithms").split()[1].split(",")
    assert ("mlkem768x25519-sha256" in known) == ("mlkem768x25519-sha256" in offered)
    assert "sntrup761x25519-sha512@openssh.com" in offered
    assert not [name for name in offered if "diffie-hellman" in name]


def users(*more):
    """Return ssh_users with the deploying user as it is, and more."""
    key = KEY.with_suffix(".pub").read_text()
    return [{"name": "deploy", "sudo": True, "keys": [key]}, *more]


@pytest.mark.usefixtures("only_site")
def test_a_removed_user_is_gone_at_once(host, login, play):
    address = host.ansible.get_variables()["ansible_host"]
    host.check_output("systemd-run --quiet --unit=annas --uid=anna sleep 600")
    done = play("ssh", "--limit=site", ssh_users=users({"name": "anna", "state": "absent"}))
    assert done.code == 0, done.output
    assert "Permission denied (publickey)." in login("anna").stderr, address
    assert not host.service("annas").is_running
    assert host.file("/home/anna").exists
    assert not host.file("/home/anna/.ssh/authorized_keys").exists

    assert play("ssh", "--limit=site").code == 0
    assert login("anna").stdout == "anna\n"


@pytest.mark.usefixtures("only_site")
def test_a_change_that_locks_out_is_taken_back(host, login, play, unguarded):
    """The key that is given to the deploying user is somebody else's."""
    files = ["/home/deploy/.ssh/authorized_keys", "/etc/ssh/sshd_config.d/00-flaskstack.conf"]
    before = [host.file(path).content_string for path in files]
    wrong = [{"name": "deploy", "sudo": True, "keys": [OTHER_KEY]}]
    soon = {"guard_timeout": 20, "guard_proof_timeout": 5}
    done = play("ssh", "--limit=site", ssh_users=wrong, ssh_max_auth_tries=2, **soon)
    assert done.code != 0
    assert done.says("The change of ssh on site would have locked you out")
    unguarded("site", 0)
    assert [host.file(path).content_string for path in files] == before
    assert login("deploy").stdout == "deploy\n"


@pytest.mark.usefixtures("only_site")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ssh_users": [{"name": "deploy", "state": "absent"}]},
            "must not remove root, or the user that the inventory connects to site as",
        ),
        (
            {"ssh_users": [{"name": "www-data", "keys": [OTHER_KEY]}]},
            "must have people only, not users that site has for its services",
        ),
        (
            {"ssh_users": [{"name": "deploy", "sudo": False, "keys": [OTHER_KEY]}]},
            "must have sudo for deploy, as whom Ansible connects to site",
        ),
    ],
    ids=["removed", "service", "rights"],
)
def test_what_would_lock_out_for_sure_is_refused(play, settings, message):
    done = play("ssh", "--limit=site", **settings)
    assert done.code != 0
    assert done.says(message)
    assert done.changed == 0


@pytest.mark.usefixtures("only_site")
def test_settings_that_another_file_overrules_are_refused(host, login, play, unguarded):
    own = "/etc/ssh/sshd_config.d/50-own.conf"
    host.check_output("printf %s >%s", "Match User deploy\nPasswordAuthentication yes\n", own)
    try:
        done = play("ssh", "--limit=site", ssh_max_auth_tries=2)
    finally:
        host.check_output("rm %s", own)
    assert done.code != 0
    assert done.says("sshd would not go by passwordauthentication no")
    unguarded("site", 0)
    assert "MaxAuthTries 3" in host.file("/etc/ssh/sshd_config.d/00-flaskstack.conf").content_string
    assert login("deploy").stdout == "deploy\n"
