"""Changes of SSH settings and users, and rollback of a change that locks the controller out."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.repository import ROOT
from helpers.wait import wait_for

testinfra_hosts = ["ansible://site"]

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFUUMvBf5c5Jcu6zjFPlz60luPQw5PkktQG/OLp/5Tm5"
FILES = ("/home/deploy/.ssh/authorized_keys", "/etc/ssh/sshd_config.d/00-flaskstack.conf")
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


@pytest.fixture(scope="class")
def _other_settings(hosts, configure):
    """Change settings and users under socket activation, and restore them afterwards."""
    site = hosts["site"]
    site.check_output("systemd-run --quiet --unit=annas --uid=anna sleep 600")
    # The keys of another user, reached through a link, must stay.
    site.check_output("rm -r ~anna/.ssh && ln -s /home/deploy/.ssh ~anna/.ssh")
    # In one command, since another connection would start ssh.service.
    activate = "systemctl disable --now ssh.service; systemctl enable --now ssh.socket"
    assert site.run(f"{activate}; systemctl is-active ssh.service").stdout.strip() == "inactive"
    key = (ROOT / ".local/ssh/id_ed25519.pub").read_text()
    users = [
        {"name": "deploy", "sudo": True, "keys": [key]},
        {"name": "anna", "state": "absent"},
    ]
    try:
        done = configure("ssh", ssh_tcp_forwarding=True, ssh_users=users)
        assert done.code == 0, done.output
        yield
    finally:
        site.check_output("rm /home/anna/.ssh")
        # Stop both first: when units change, systemd loses track of an sshd on the socket's port.
        stop = "systemctl stop ssh.socket ssh.service; systemctl disable ssh.socket"
        site.run(f"{stop}; systemctl enable --now ssh.service")
        done = configure("ssh")
    assert done.code == 0, done.output


@pytest.mark.usefixtures("_other_settings")
class TestOtherSettings:
    """Settings that differ from those of the scenario."""

    def test_socket_activation(self, host, login, wait_for_guard):
        """Ubuntu's default: systemd listens and starts ssh.service on the first connection."""
        wait_for_guard()
        assert host.service("ssh.socket").is_running
        login("nobody-at-all")
        wait_for(lambda: "Invalid user nobody-at-all" in counted_lines(host), 10)

    def test_a_user_is_removed_with_processes_and_keys(self, host, login):
        assert "Permission denied (publickey)." in login("anna").stderr
        assert not host.service("annas").is_running
        assert login("deploy").stdout == "deploy\n"
        home = host.file("/home/anna")
        assert (home.user, home.mode) == ("root", 0o700)  # closed to a new user with the same UID

    def test_one_setting_forwards_ports_and_sockets(self, host, login, tmp_path):
        """A port, as for an editor, and a Unix socket, as for a database client."""
        host.check_output("systemd-run --unit=echo --collect python3 -c %s", ECHO)
        ends = {tmp_path / "port": "127.0.0.1:8000", tmp_path / "socket": "/run/forwarded.sock"}
        options = [f"-L{here}:{there}" for here, there in ends.items()]
        with ThreadPoolExecutor() as pool:
            session = pool.submit(login, "deploy", *options, command="sleep 600")
            try:
                wait_for(lambda: all(here.exists() for here in ends) or session.done(), 20)
                assert not session.done(), session.result().stderr
                assert [echo(here) for here in ends] == [b"hello"] * 2
            finally:
                host.run("pkill -u deploy sleep; systemctl stop echo; rm -f /run/forwarded.sock")


def echo(path):
    """Return the response of a server on a local Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"hello")
        return client.recv(100)


def counted_lines(host):
    """Return the log lines of sshd that fail2ban's journal match selects."""
    match = host.check_output("fail2ban-client get sshd journalmatch").splitlines()[-1]
    words = match.replace("`-", "").split()
    return host.check_output("journalctl --boot --output=cat " + " ".join(words))


def test_a_removed_user_can_be_added_again(host, login):
    assert login("anna").stdout == "anna\n"
    assert host.file("/home/anna").user == "anna"


def test_the_host_rolls_back_without_the_controller(host, login, operator, wait_for_guard):
    """User deploy gets another key."""
    before = [host.file(path).content_string for path in FILES]
    operator.interrupt(
        "../molecule/host/converge",
        "Wait for a new connection",
        None,
        *("--tags=ssh", "--limit=site"),
        ssh_users=[{"name": "deploy", "sudo": True, "keys": [OTHER_KEY]}],
        ssh_max_auth_tries=2,
        lockout_guard_timeout=30,
        lockout_guard_connect_timeout=5,
    )
    assert "Permission denied" in login("deploy").stderr
    wait_for_guard(60)
    assert [host.file(path).content_string for path in FILES] == before
    assert login("deploy").stdout == "deploy\n"


def test_settings_that_lock_out_are_rejected(configure):
    users = [
        {"name": "www-data", "keys": [OTHER_KEY]},
        {"name": "staff", "keys": [OTHER_KEY]},
        {"name": "deploy", "sudo": False, "keys": [OTHER_KEY]},
    ]
    done = configure("ssh", ssh_users=users)
    assert done.code != 0
    assert done.says("ssh_users is [www-data]: must not contain system users of site")
    assert done.says("ssh_users is [staff]: must not have names of existing groups on site")
    assert done.says("must have sudo for deploy, the user that Ansible connects to site as")
    assert done.changed == 0


def test_settings_that_another_file_overrides_are_rejected(host, login, configure, wait_for_guard):
    own = "/etc/ssh/sshd_config.d/50-own.conf"
    host.check_output("printf %s >%s", "Match User deploy\nPasswordAuthentication yes\n", own)
    try:
        done = configure("ssh", ssh_max_auth_tries=2)
    finally:
        host.check_output("rm %s", own)
    assert done.code != 0
    assert done.says("sshd ignores passwordauthentication no")
    wait_for_guard()
    assert "MaxAuthTries 6" in host.file(FILES[1]).content_string
    assert login("deploy").stdout == "deploy\n"
