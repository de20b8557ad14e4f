"""Login users and jump hosts."""

import pytest

from logins import grouped_logins, hosts_behind, logins

KEY = "ssh-ed25519 AAAA anna@laptop"
PASSWD = {
    "root": ["x", "0", "0", "root", "/root", "/bin/bash"],
    "www-data": ["x", "33", "33", "", "/var/www", "/usr/sbin/nologin"],
    "nobody": ["x", "65534", "65534", "", "/nonexistent", "/usr/sbin/nologin"],
    "vendor": ["x", "1001", "1001", "", "/opt/vendor", "/usr/sbin/nologin"],
    "anna": ["x", "1000", "100", "", "/home/a", "/bin/bash"],
    "carl": ["x", "1002", "100", "", "/home/carl", "/bin/bash"],
}


def test_defaults_of_a_user_and_one_key_per_line():
    (login,) = logins([{"name": "bert", "keys": [KEY + "\n", KEY]}], PASSWD)
    assert (login["present"], login["sudo"], login["new"]) == (True, False, True)
    assert login["authorized"] == f"{KEY}\n{KEY}\n"


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("root", False),
        ("anna", False),
        ("bert", False),
        ("www-data", True),
        ("nobody", True),
        ("vendor", True),
    ],
)
def test_system_users_are_detected(name, system):
    (login,) = logins([{"name": name}], PASSWD)
    assert login["system"] is system


def test_users_are_grouped_by_what_to_do():
    users = [
        {"name": "anna", "sudo": True},
        {"name": "bert", "sudo": True},
        {"name": "carl", "state": "absent", "sudo": True},
        {"name": "dora", "state": "absent"},
        {"name": "root"},
    ]
    found = grouped_logins(users, PASSWD, "anna")
    assert found["current"]["name"] == "anna"
    assert [login["name"] for login in found["others"]] == ["bert", "carl", "dora", "root"]
    assert found["new"] == ["bert"]
    assert found["removed"] == ["carl"]
    assert found["sudo"] == ["bert"]
    assert found["no_sudo"] == ["carl", "dora", "root"]
    assert grouped_logins(users, PASSWD, "deploy")["current"] == {}


ADDRESSES = {"edge": ["10.0.0.1", "203.0.113.1"], "app": ["10.0.0.2"], "data": ["10.0.0.3"]}


def behind(jump_host="edge", **clients):
    """Return the hosts behind the jump host; `clients` are the addresses that hosts see."""
    hostvars = {
        name: {
            "ansible_facts": {
                "all_ipv4_addresses": ADDRESSES[name],
                "env": {"SSH_CONNECTION": f"{address} 50000 10.0.0.2 22"} if address else {},
            }
        }
        for name, address in clients.items()
    }
    return hosts_behind(hostvars, hostvars, jump_host)


def test_jump_host_is_the_client_of_other_hosts():
    clients = {"edge": "198.51.100.9", "app": "10.0.0.1", "data": "10.0.0.1"}
    assert behind(**clients) == ["app", "data"]
    assert behind("app", **clients) == []


@pytest.mark.parametrize("own", ["", "127.0.0.1", "::1", "10.0.0.1"])
def test_controller_is_no_jump_host(own):
    assert behind(edge=own, app="10.0.0.1") == []
