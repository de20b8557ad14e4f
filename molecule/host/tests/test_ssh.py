"""Logins, and the algorithms of sshd."""

import re

import pytest

from helpers import audits

testinfra_hosts = ["ansible://site", "ansible://data"]


def test_keys_are_accepted(login):
    for user in ("deploy", "anna"):
        assert login(user).stdout == f"{user}\n"


def test_passwords_are_not_offered(host, login):
    host.check_output("echo deploy:Correct-horse-7-battery | chpasswd")
    try:
        refused = login("deploy", "-o", "PubkeyAuthentication=no")
    finally:
        host.check_output("usermod --password '*' deploy")
    assert refused.returncode == 255
    assert "Permission denied (publickey)." in refused.stderr


def test_root_logs_in_only_where_the_inventory_permits_it(login, name):
    result = login("root")
    if name == "data":
        assert result.stdout == "root\n"
    else:
        assert "Permission denied (publickey)." in result.stderr


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


def test_forwarding_is_disabled(address, login):
    jumped = login("deploy", "-o", "LogLevel=INFO", "-W", f"{address}:22")
    assert "administratively prohibited" in jumped.stderr
    assert "SSH_AUTH_SOCK" not in login("deploy", "-A", command="env", agent=["ssh-agent"]).stdout


def test_ssh_audit_reports_the_documented_findings(address):
    assert audits.undocumented_ssh(address) == []


def test_the_strongest_key_exchange_of_the_host_is_used(host, login):
    known = host.check_output("ssh -Q kex").splitlines()
    best = "mlkem768x25519" if "mlkem768x25519-sha256" in known else "sntrup761x25519"
    offered = host.check_output("sshd -T | grep -i ^kexalgorithms").split()[1].split(",")
    assert offered[0].startswith(best)
    assert not [name for name in offered if "exchange" in name or name.endswith("sha1")]
    output = login("anna", "-v", "-oLogLevel=VERBOSE").stderr
    assert re.search("kex: algorithm: (mlkem768x25519-sha256|sntrup761x25519-sha512)", output)
