"""Who may log in, and what is refused before anybody is locked out."""

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
    """Return the variables of a host whose facts are those above, but for some."""
    facts = {
        "user_id": user,
        "env": {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 22"},
        "access": ACCESS | access,
    }
    return {"ansible_facts": facts, "ansible_play_hosts": []}


@pytest.fixture
def settings(render):
    """Return a function that gives sshd's settings."""

    def settings(**variables):
        name = "etc/ssh/sshd_config.d/00-flaskstack.conf"
        text = render("ssh", f"{name}.j2", **gathered() | variables)
        lines = [line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
        return dict(lines)

    return settings


@pytest.fixture
def refused(evaluate):
    """Return a function that tells which variables are refused, without and with the host."""

    def refused(what="__ssh_problems", **variables):
        return [text.split(" ")[0].rstrip(":") for text in evaluate("ssh", what, **variables)]

    return refused


@pytest.fixture
def refused_there(refused):
    """Return a function that tells which variables are refused once a host has been looked at."""
    return lambda **variables: refused("__ssh_host_problems", **gathered() | variables)


def test_keys_and_nothing_else(settings):
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
def test_root_gets_in_only_where_it_has_to(settings, connects, expected):
    assert settings(**connects)["PermitRootLogin"] == expected


def test_algorithms_are_those_that_the_host_has_best_first(settings):
    found = settings()
    quantum_safe = "mlkem768x25519-sha256,sntrup761x25519-sha512@openssh.com"
    assert found["KexAlgorithms"] == f"{quantum_safe},curve25519-sha256"
    assert found["Ciphers"] == "aes256-gcm@openssh.com"
    assert found["MACs"] == "hmac-sha2-512-etm@openssh.com"
    found = settings(ssh_classical_key_exchange=False)
    assert found["KexAlgorithms"] == quantum_safe


def test_the_controller_is_never_penalised(settings):
    found = settings(ssh_penalty_exempt=["198.51.100.0/24"])
    assert found["PerSourcePenaltyExemptList"] == "203.0.113.9,198.51.100.0/24"


@pytest.mark.parametrize("word", ["PerSourcePenaltyExemptList", "GSSAPIAuthentication"])
def test_an_openssh_is_not_told_of_what_it_does_not_know(settings, word):
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
def test_users_that_work_are_accepted(refused, users):
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
def test_users_that_do_not_are_refused(refused, users):
    assert refused(ssh_users=users) == ["ssh_users"]


def test_who_connects_is_not_removed(refused):
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
def test_settings_that_cannot_work_are_refused(refused, variable, value):
    assert refused(**{variable: value}) != []


def test_root_is_not_shut_out_while_it_connects(refused, refused_there):
    assert refused(ansible_user="root", ssh_permit_root="no") == ["ssh_permit_root"]
    assert refused_there(**gathered("root"), ssh_permit_root="no") == ["ssh_permit_root"]
    assert refused_there() == []


def test_passwords_do_not_end_for_one_without_a_key(refused_there):
    keyless = gathered(has_key=False)
    assert refused_there(**keyless) == ["ssh_users"]
    own = [{"name": "deploy", "keys": [KEY]}]
    assert refused_there(**keyless, ssh_users=own) == []


def test_an_authority_in_place_of_keys_is_enough(refused_there):
    assert refused_there(**gathered(has_key=False, sshd="authorizedkeyscommand none")) == []


@pytest.mark.parametrize("name", ["backup", "docker"])
def test_users_and_groups_of_services_are_no_people(refused_there, name):
    assert refused_there(ssh_users=[{"name": name, "keys": [KEY]}]) == ["ssh_users"]


def test_sudo_is_not_taken_from_who_connects(refused_there):
    own = [{"name": "deploy", "keys": [KEY], "sudo": False}]
    assert refused_there(ssh_users=own, **gathered(has_sudo_rule=True)) == ["ssh_users"]
    assert refused_there(ssh_users=own) == []


def test_a_host_on_the_way_to_others_forwards(refused_there):
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
