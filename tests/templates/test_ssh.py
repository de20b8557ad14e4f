"""sshd settings, and validation that prevents a lockout."""

import pytest

from helpers.templates import problems

KEY = "ssh-ed25519 " + "A" * 68
ACCESS = {
    "users": {
        "root": ["x", "0", "0", "", "/root", "/bin/bash"],
        "deploy": ["x", "1000", "1000", "", "/home/deploy", "/bin/bash"],
        "backup": ["x", "34", "34", "", "/var/backups", "/usr/sbin/nologin"],
    },
    "groups": ["root"],
    "sshd": ["port 22", "gssapiauthentication no", "persourcepenalties crash:90"],
    "sshd_algorithms": [
        "chacha20-poly1305@openssh.com",
        "aes256-gcm@openssh.com",
        "hmac-sha1",
        "hmac-sha2-512",
        "hmac-sha2-512-etm@openssh.com",
        "curve25519-sha256",
        "sntrup761x25519-sha512@openssh.com",
        "mlkem768x25519-sha256",
    ],
    "has_key": True,
    "has_sudo_rule": False,
}


def gathered(user="deploy", **access):
    """Return the variables of a host with the facts above, some of them changed."""
    facts = {
        "user_id": user,
        "env": {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 22"},
        "access": ACCESS | access,
    }
    return {"ansible_facts": facts, "ansible_play_hosts": []}


@pytest.fixture
def settings(render):
    """Return a function that renders the settings of sshd."""

    def settings(**variables):
        name = "etc/ssh/sshd_config.d/00-flaskstack.conf"
        text = render("ssh", f"{name}.j2", **gathered() | variables)
        lines = [line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
        return dict(lines)

    return settings


def test_only_keys_are_accepted(settings):
    found = settings()
    assert found["AuthenticationMethods"] == "publickey"
    assert found["PasswordAuthentication"] == "no"
    assert found["KbdInteractiveAuthentication"] == "no"


@pytest.mark.parametrize(
    ("connects", "expected"),
    [
        ({}, "prohibit-password"),
        ({"ansible_user": "root"}, "prohibit-password"),
        ({"ansible_user": "deploy"}, "no"),
    ],
)
def test_root_login_is_permitted_only_if_ansible_uses_it(settings, connects, expected):
    assert settings(**connects)["PermitRootLogin"] == expected


def test_algorithms_are_supported_by_the_host_and_ordered(settings):
    found = settings()
    quantum_safe = "mlkem768x25519-sha256,sntrup761x25519-sha512@openssh.com"
    assert found["KexAlgorithms"] == f"{quantum_safe},curve25519-sha256"
    assert found["Ciphers"] == "aes256-gcm@openssh.com"
    assert found["MACs"] == "hmac-sha2-512-etm@openssh.com,hmac-sha2-512"
    found = settings(ssh_classical_key_exchange=False)
    assert found["KexAlgorithms"] == quantum_safe
    assert found["MACs"] == "hmac-sha2-512-etm@openssh.com"


def test_controller_is_never_penalised(settings):
    found = settings(ssh_penalty_exempt=["198.51.100.0/24"])
    assert found["PerSourcePenaltyExemptList"] == "203.0.113.9,198.51.100.0/24"


@pytest.mark.parametrize("word", ["PerSourcePenaltyExemptList", "GSSAPIAuthentication"])
def test_unsupported_options_are_omitted(settings, word):
    assert word in settings()
    assert word not in settings(**gathered(sshd=["port 22"]))


def test_settings_that_lock_out_are_rejected(evaluate):
    """See tests/plugins/test_host_checks.py for each check."""
    given = gathered() | {"ssh_users": [{"name": "deploy", "state": "absent"}]}
    assert problems("ssh", **given) == []
    (message,) = problems("ssh", **given, ansible_user="deploy")
    assert message.startswith("ssh_users is [deploy]: must not remove root or the user that")
    (message,) = evaluate("ssh", "__ssh_host_problems", **given)
    assert message.startswith("ssh_users is [deploy]: must not remove deploy, the user that")


def test_jump_host_needs_tcp_forwarding(evaluate):
    inner = {"ansible_facts": {"env": {"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"}}}
    facts = gathered()["ansible_facts"] | {"all_ipv4_addresses": ["10.0.0.1"]}
    given = {
        "ansible_facts": facts,
        "hostvars": {"host": {"ansible_facts": facts}, "inner": inner},
        "ansible_play_hosts": ["host", "inner"],
    }
    (message,) = evaluate("ssh", "__ssh_host_problems", **given)
    assert message.startswith("ssh_tcp_forwarding is false: must be true for host, the jump host")


def test_sessions_inherit_no_restriction_of_administrators(render):
    """Login sessions are children of sshd: they inherit its namespaces, filters and privileges."""
    text = render("ssh", "etc/systemd/system/ssh.service.d/flaskstack.conf.j2")
    options = {line.split("=")[0] for line in text.splitlines() if "=" in line[:40]}
    allowed = {"SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter"}
    assert options - allowed == {
        *("LogRateLimitBurst", "LogRateLimitIntervalSec", "RestartPreventExitStatus"),
        *("RestartSec", "StartLimitIntervalSec"),
    }
    assert "SystemCallFilter=~@cpu-emulation @obsolete" in text.splitlines()
