"""Login users and jump hosts."""

import pytest

from logins import jump_hosts, logins

KEY = "ssh-ed25519 AAAA anna@laptop"
PASSWD = {
    "root": ["x", "0", "0", "root", "/root", "/bin/bash"],
    "www-data": ["x", "33", "33", "", "/var/www", "/usr/sbin/nologin"],
    "nobody": ["x", "65534", "65534", "", "/nonexistent", "/usr/sbin/nologin"],
    "vendor": ["x", "1001", "1001", "", "/opt/vendor", "/usr/sbin/nologin"],
    "anna": ["x", "1000", "100", "", "/home/a", "/bin/bash"],
}


def of(passwd=PASSWD, **user):
    (login,) = logins([user], passwd)
    return login


def test_new_user_has_debians_default_home_and_group():
    login = of(name="bert")
    assert (login["home"], login["group"], login["new"]) == ("/home/bert", "bert", True)


def test_existing_user_keeps_home_and_group():
    login = of(name="anna")
    assert (login["home"], login["group"], login["new"]) == ("/home/a", "100", False)


def test_omitted_options_have_defaults():
    login = of(name="bert", keys=[])
    assert (login["present"], login["sudo"], login["authorized"]) == (True, False, "")


def test_keys_are_one_per_line():
    assert of(name="bert", keys=[KEY + "\n", KEY])["authorized"] == f"{KEY}\n{KEY}\n"


def test_absent_users():
    assert not of(name="anna", state="absent")["present"]


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
    assert of(name=name)["system"] is system


ADDRESSES = {"edge": ["10.0.0.1", "203.0.113.1"], "app": ["10.0.0.2"], "database": ["10.0.0.3"]}


def test_jump_host_is_the_client_of_other_hosts():
    clients = {"edge": "198.51.100.9", "app": "10.0.0.1", "database": "10.0.0.1"}
    assert jump_hosts(ADDRESSES, clients) == {"edge": ["app", "database"]}


def test_no_jump_host_with_direct_connections():
    assert jump_hosts(ADDRESSES, dict.fromkeys(ADDRESSES, "198.51.100.9")) == {}


@pytest.mark.parametrize("own", ["", "127.0.0.1", "::1", "10.0.0.1"])
def test_controller_is_no_jump_host(own):
    assert jump_hosts(ADDRESSES, {"edge": own, "app": "10.0.0.1"}) == {}
