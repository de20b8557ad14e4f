"""Logins, and rollback of a change that locks the controller out."""

import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers import audits
from helpers.repository import ROOT
from helpers.wait import wait_for

testinfra_hosts = ["ansible://site", "ansible://data"]

KEY = ROOT / ".local/ssh/id_ed25519"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFUUMvBf5c5Jcu6zjFPlz60luPQw5PkktQG/OLp/5Tm5"


@pytest.fixture
def login(host):
    """Give `login(user, *options)`: the result of a login by ssh."""
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


def test_keys_are_accepted(login):
    for user in ("deploy", "anna"):
        assert login(user).stdout == f"{user}\n"


def test_passwords_are_not_offered(host, login):
    host.check_output("echo deploy:Correct-horse-7-battery | chpasswd")
    try:
        tried = login("deploy", "-o", "PubkeyAuthentication=no")
    finally:
        host.check_output("usermod --password '*' deploy")
    assert tried.returncode == 255
    assert "Permission denied (publickey)." in tried.stderr


def test_root_logs_in_only_where_the_inventory_permits_it(login, name):
    tried = login("root")
    if name == "data":
        assert tried.stdout == "root\n"
    else:
        assert "Permission denied (publickey)." in tried.stderr


def test_sudo_is_limited_to_administrators(login):
    assert login("deploy", command="sudo -n id -un").stdout == "root\n"
    assert login("anna", command="sudo -n id -un").returncode != 0


# The strongest algorithms that common client libraries share with the host.
CLIENTS = {
    "paramiko": ("curve25519-sha256@libssh.org", "aes128-ctr", "hmac-sha2-256"),
    "Go": ("curve25519-sha256", "aes128-gcm@openssh.com", "hmac-sha2-256-etm@openssh.com"),
    "libssh2 1.8": ("ecdh-sha2-nistp256", "aes256-ctr", "hmac-sha2-512"),
    "JSch 0.1.55": ("ecdh-sha2-nistp256", "aes128-ctr", "hmac-sha2-256"),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_common_clients_log_in(login, client):
    exchange, cipher, mac = CLIENTS[client]
    options = [f"-oKexAlgorithms={exchange}", f"-oCiphers={cipher}", f"-oMACs={mac}"]
    done = login("anna", *options)
    assert done.stdout == "anna\n", done.stderr


# Echoes on a Unix socket, as a stand-in for a database.
ECHO = """
import os, socket
with socket.socket(socket.AF_UNIX) as server:
    server.bind("/run/forwarded.sock")
    os.chmod("/run/forwarded.sock", 0o666)
    server.listen()
    client, _ = server.accept()
    client.sendall(client.recv(100))
"""


@pytest.mark.usefixtures("only_site")
def test_one_setting_forwards_ports_and_sockets(host, login, play, tmp_path):
    """A port, as for an editor, and a Unix socket, as for a database client."""
    host.check_output("systemd-run --unit=echo --collect python3 -c %s", ECHO)
    done = play("ssh", "--limit=site", ssh_tcp_forwarding=True)
    assert done.code == 0, done.output
    ends = {tmp_path / "port": "127.0.0.1:8000", tmp_path / "socket": "/run/forwarded.sock"}
    options = [f"-L{here}:{there}" for here, there in ends.items()]
    with ThreadPoolExecutor() as pool:
        session = pool.submit(login, "anna", *options, command="sleep 600")
        try:
            wait_for(lambda: all(here.exists() for here in ends) or session.done(), 20)
            assert not session.done(), session.result().stderr
            assert [asked(here) for here in ends] == [b"hello"] * 2
        finally:
            host.run("pkill -u anna sleep; systemctl stop echo; rm -f /run/forwarded.sock")
            assert play("ssh", "--limit=site").code == 0


def asked(path):
    """Return the response of a server on a local Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"hello")
        return client.recv(100)


def test_forwarding_is_disabled(host, login):
    address = host.ansible.get_variables()["ansible_host"]
    jumped = login("deploy", "-o", "LogLevel=INFO", "-W", f"{address}:22")
    assert "administratively prohibited" in jumped.stderr
    assert "SSH_AUTH_SOCK" not in login("deploy", "-A", command="env", agent=["ssh-agent"]).stdout


def test_ssh_audit_reports_the_documented_findings(host):
    assert audits.undocumented_ssh(host.ansible.get_variables()["ansible_host"]) == []


def test_the_best_key_exchange_of_the_host_is_used(host, login):
    known = host.check_output("ssh -Q kex").splitlines()
    best = "mlkem768x25519" if "mlkem768x25519-sha256" in known else "sntrup761x25519"
    offered = host.check_output("sshd -T | grep -i ^kexalgorithms").split()[1].split(",")
    assert offered[0].startswith(best)
    assert not [name for name in offered if "exchange" in name or name.endswith("sha1")]
    said = login("anna", "-v", "-oLogLevel=VERBOSE").stderr
    assert re.search("kex: algorithm: (mlkem768x25519-sha256|sntrup761x25519-sha512)", said)


def users(*more):
    """Return ssh_users with the user deploy and more."""
    key = KEY.with_suffix(".pub").read_text()
    return [{"name": "deploy", "sudo": True, "keys": [key]}, *more]


@pytest.mark.usefixtures("only_site")
def test_a_user_is_removed_with_processes_and_keys(host, login, play):
    address = host.ansible.get_variables()["ansible_host"]
    host.check_output("systemd-run --quiet --unit=annas --uid=anna sleep 600")
    # The keys of another user, reached through a link, must stay.
    host.check_output("rm -r ~anna/.ssh && ln -s /home/deploy/.ssh ~anna/.ssh")
    done = play("ssh", "--limit=site", ssh_users=users({"name": "anna", "state": "absent"}))
    assert done.code == 0, done.output
    assert "Permission denied (publickey)." in login("anna").stderr, address
    assert not host.service("annas").is_running
    assert login("deploy").stdout == "deploy\n"
    home = host.file("/home/anna")
    assert (home.user, home.mode) == ("root", 0o700)  # closed to a new user with the same UID
    host.check_output("rm /home/anna/.ssh")

    assert play("ssh", "--limit=site").code == 0
    assert login("anna").stdout == "anna\n"
    assert host.file("/home/anna").user == "anna"


@pytest.mark.usefixtures("only_site")
def test_a_change_that_locks_out_is_rolled_back(host, login, play, guard_gone):
    """User deploy gets another key."""
    files = ["/home/deploy/.ssh/authorized_keys", "/etc/ssh/sshd_config.d/00-flaskstack.conf"]
    before = [host.file(path).content_string for path in files]
    wrong = [{"name": "deploy", "sudo": True, "keys": [OTHER_KEY]}]
    soon = {"lockout_guard_timeout": 20, "lockout_guard_connect_timeout": 5}
    done = play("ssh", "--limit=site", ssh_users=wrong, ssh_max_auth_tries=2, **soon)
    assert done.code != 0
    assert done.says("site rolled the change of ssh back")
    guard_gone("site", 0)
    assert [host.file(path).content_string for path in files] == before
    assert login("deploy").stdout == "deploy\n"


@pytest.mark.usefixtures("only_site")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ssh_users": [{"name": "deploy", "state": "absent"}]},
            "must not remove root or the user that the inventory connects to site as",
        ),
        (
            {"ssh_users": [{"name": "www-data", "keys": [OTHER_KEY]}]},
            "must not contain system users of site",
        ),
        (
            {"ssh_users": [{"name": "staff", "keys": [OTHER_KEY]}]},
            "must not have names of existing groups on site",
        ),
        (
            {"ssh_users": [{"name": "deploy", "sudo": False, "keys": [OTHER_KEY]}]},
            "must have sudo for deploy, the user that Ansible connects to site as",
        ),
    ],
    ids=["removed", "service", "group", "rights"],
)
def test_settings_that_lock_out_are_rejected(play, settings, message):
    done = play("ssh", "--limit=site", **settings)
    assert done.code != 0
    assert done.says(message)
    assert done.changed == 0


@pytest.mark.usefixtures("only_site")
def test_socket_activation(host, login, play, guard_gone):
    """Ubuntu's default: systemd listens and starts ssh.service on the first connection."""
    host.check_output("systemctl disable --now ssh.service; systemctl enable --now ssh.socket")
    try:
        assert not host.service("ssh").is_running
        assert login("anna").stdout == "anna\n"
        done = play("ssh", "--limit=site", ssh_max_auth_tries=4)
        assert done.code == 0, done.output
        guard_gone("site", 0)
        login("nobody-at-all")
        wait_for(lambda: "Invalid user nobody-at-all" in said_by_sshd(host), 10)
    finally:
        # Stop first: systemd loses track of an sshd with the socket's port when units change.
        stop = "systemctl stop ssh.socket ssh.service; systemctl disable ssh.socket"
        host.run(f"{stop}; systemctl enable --now ssh.service")
    assert play("ssh", "--limit=site").code == 0


def said_by_sshd(host):
    """Return the log lines of sshd that fail2ban's journal match selects."""
    match = host.check_output("fail2ban-client get sshd journalmatch").splitlines()[-1]
    words = match.replace("`-", "").split()
    return host.check_output("journalctl --boot --output=cat " + " ".join(words))


@pytest.mark.usefixtures("only_site")
def test_settings_that_another_file_overrides_are_rejected(host, login, play, guard_gone):
    own = "/etc/ssh/sshd_config.d/50-own.conf"
    host.check_output("printf %s >%s", "Match User deploy\nPasswordAuthentication yes\n", own)
    try:
        done = play("ssh", "--limit=site", ssh_max_auth_tries=2)
    finally:
        host.check_output("rm %s", own)
    assert done.code != 0
    assert done.says("sshd ignores passwordauthentication no")
    guard_gone("site", 0)
    assert "MaxAuthTries 6" in host.file("/etc/ssh/sshd_config.d/00-flaskstack.conf").content_string
    assert login("deploy").stdout == "deploy\n"
