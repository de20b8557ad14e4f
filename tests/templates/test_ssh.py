"""sshd settings, and validation that prevents a lockout."""

import pytest

KEY = "ssh-ed25519 " + "A" * 68
ACCESS = {
    "users": {
        "root": ["x", "0", "0", "", "/root", "/bin/bash"],
        "deploy": ["x", "1000", "1000", "", "/home/deploy", "/bin/bash"],
        "backup": ["x", "34", "34", "", "/var/backups", "/usr/sbin/nologin"],
    },
    "sshd": "Port 22\nGSSAPIAuthentication no\nPerSourcePenalties crash:90\n"
    "AuthorizedKeysCommand none\nTrustedUserCAKeys none",
    "sshd_defaults": "port 22\n"
    "ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com\n"
    "macs hmac-sha1,hmac-sha2-512-etm@openssh.com\n"
    "kexalgorithms curve25519-sha256,sntrup761x25519-sha512@openssh.com,mlkem768x25519-sha256\n"
    "hostkeyalgorithms ssh-ed25519",
    "groups": ["root", "docker"],
    "sshd_runs": True,
    "sshd_includes": True,
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


@pytest.fixture
def refused(evaluate):
    """Return a function that returns the names of rejected variables."""

    def refused(what="__ssh_problems", **variables):
        return [text.split(" ")[0].rstrip(":") for text in evaluate("ssh", what, **variables)]

    return refused


@pytest.fixture
def refused_there(refused):
    """Return a function that returns the variables rejected because of the host's facts."""
    return lambda **variables: refused("__ssh_host_problems", **gathered() | variables)


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
    assert found["MACs"] == "hmac-sha2-512-etm@openssh.com"
    found = settings(ssh_classical_key_exchange=False)
    assert found["KexAlgorithms"] == quantum_safe


def test_controller_is_never_penalised(settings):
    found = settings(ssh_penalty_exempt=["198.51.100.0/24"])
    assert found["PerSourcePenaltyExemptList"] == "203.0.113.9,198.51.100.0/24"


@pytest.mark.parametrize("word", ["PerSourcePenaltyExemptList", "GSSAPIAuthentication"])
def test_unsupported_options_are_omitted(settings, word):
    assert word in settings()
    assert word not in settings(**gathered(sshd="port 22"))


@pytest.mark.parametrize(
    "users",
    [
        [],
        [{"name": "anna", "keys": [KEY]}],
        [{"name": "anna", "keys": [KEY + " anna@laptop\n"], "sudo": True, "state": "present"}],
        [{"name": "anna", "keys": [f'from="10.0.0.0/8,::1",restrict,command="x y" {KEY}']}],
        [{"name": "root", "keys": [KEY]}],
        [{"name": "bert", "state": "absent"}],
    ],
)
def test_valid_users_are_accepted(refused, users):
    assert refused(ssh_users=users) == []


@pytest.mark.parametrize(
    "users",
    [
        [{"name": "Anna", "keys": [KEY]}],
        [{"name": "anna:x", "keys": [KEY]}],
        [{"name": "anna", "keys": []}],
        [{"name": "anna"}],
        [{"name": "anna", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}],
        [{"name": "anna", "keys": [KEY, ""]}],
        [{"name": "anna", "keys": ["ssh-dss " + "A" * 68]}],
        [{"name": "anna", "keys": [KEY]}, {"name": "anna", "state": "absent"}],
        [{"name": "shop", "keys": [KEY]}],
        [{"name": "shop-build", "keys": [KEY]}],
        [{"name": "root", "state": "absent"}],
    ],
)
def test_invalid_users_are_rejected(refused, users):
    assert refused(ssh_users=users) == ["ssh_users"]


def test_removing_the_connecting_user_is_rejected(refused):
    leaving = [{"name": "deploy", "state": "absent"}]
    assert refused(ssh_users=leaving, ansible_user="deploy") == ["ssh_users"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ssh_login_grace_time", 0),
        ("ssh_max_sessions", 0),
        ("ssh_max_startups", "10"),
        ("ssh_penalty_exempt", ["office.example.org"]),
    ],
)
def test_invalid_settings_are_rejected(refused, variable, value):
    assert refused(**{variable: value}) != []


def test_disabling_root_login_is_rejected_for_connections_as_root(refused, refused_there):
    assert refused(ansible_user="root", ssh_permit_root="no") == ["ssh_permit_root"]
    assert refused_there(**gathered("root"), ssh_permit_root="no") == ["ssh_permit_root"]
    assert refused_there() == []


def test_connecting_user_needs_a_key(refused_there):
    keyless = gathered(has_key=False)
    assert refused_there(**keyless) == ["ssh_users"]
    own = [{"name": "deploy", "keys": [KEY]}]
    assert refused_there(**keyless, ssh_users=own) == []


def test_certificate_authority_replaces_keys(refused_there):
    assert refused_there(**gathered(has_key=False, sshd="authorizedkeyscommand none")) == []


@pytest.mark.parametrize("name", ["backup", "docker"])
def test_names_of_system_users_and_groups_are_rejected(refused_there, name):
    assert refused_there(ssh_users=[{"name": name, "keys": [KEY]}]) == ["ssh_users"]


def test_removing_sudo_from_the_connecting_user_is_rejected(refused_there):
    own = [{"name": "deploy", "keys": [KEY], "sudo": False}]
    assert refused_there(ssh_users=own, **gathered(has_sudo_rule=True)) == ["ssh_users"]
    assert refused_there(ssh_users=own) == []


def test_jump_host_needs_tcp_forwarding(refused_there):
    hosts = {
        "host": {
            "inventory_hostname": "host",
            "ansible_facts": {
                "all_ipv4_addresses": ["192.0.2.1", "10.0.0.1"],
                "env": {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 22"},
            },
        },
        "inner": {
            "inventory_hostname": "inner",
            "ansible_facts": {
                "all_ipv4_addresses": ["10.0.0.2"],
                "env": {"SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22"},
            },
        },
    }
    seen = {"hostvars": hosts, "ansible_play_hosts": ["host", "inner"]}
    assert refused_there(**seen) == ["ssh_tcp_forwarding"]
    assert refused_there(**seen, ssh_tcp_forwarding=True) == []
