"""Invalid settings of a host, and settings that would lock the controller out, are rejected."""

import pytest

from helpers import repository
from host_checks import (
    NETWORKS,
    NUMBERS,
    PATTERNS,
    PORTS,
    fail2ban_checks,
    firewall_checks,
    firewall_host_checks,
    lockout_guard_checks,
    memory_checks,
    setting_checks,
    ssh_checks,
    ssh_host_checks,
)
from problems import problems

ROLES = ("base", "fail2ban", "firewall", "lockout_guard", "ssh")
DEFAULTS = {name: value for role in ROLES for name, value in repository.defaults(role).items()} | {
    "ssh_permit_root": "prohibit-password",
    "base_swap_size": 0,
}


def rejected(checks, settings=DEFAULTS):
    """Return the error messages."""
    return problems(checks, "/inventory", settings)


def settings_of(settings):
    """Return the checks of single settings of all roles."""
    return [each for role in ROLES for each in setting_checks(settings, role)]


def names(messages):
    """Return the variables of error messages."""
    return [message.split(" ")[0].rstrip(":") for message in messages]


def test_defaults_are_accepted():
    assert rejected(settings_of(DEFAULTS)) == []
    assert rejected(fail2ban_checks(DEFAULTS)) == []
    assert rejected(lockout_guard_checks(DEFAULTS)) == []


def test_only_settings_are_checked_and_examples_are_valid():
    """A misspelt name would be a check that never runs."""
    examples = {name: row[-1] for name, row in {**NUMBERS, **PATTERNS}.items()} | NETWORKS | PORTS
    assert set(examples) - set(DEFAULTS) == {"lockout_guard_name"}
    assert rejected(settings_of(DEFAULTS | examples)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_timezone", "../../etc/shadow"),
        ("base_timezone", ""),
        ("base_swap_size", -1),
        ("base_kernel_settings", {"net.core.somaxconn; reboot": 1}),
        ("base_kernel_hardening", {"kernel.sysrq": "0\nkernel.panic = 0"}),
        ("base_blocked_modules", ["dccp", "sctp; reboot"]),
        ("base_upgrade_origins", ['origin=Debian"; };']),
        ("base_upgrade_time", "6 am"),
        ("base_package_check", "weekly\nUnit=x"),
        ("base_restart_window", "at night!"),
        ("base_umask", "rwx"),
        ("fail2ban_ignore", ["office.example.org"]),
        ("fail2ban_ssh_ports", []),
        ("fail2ban_web_ports", [70000]),
        ("firewall_web_sources", ["10.0.0.0/33"]),
        ("firewall_ssh_ports", [0]),
        ("lockout_guard_paths", ["/etc"]),
        ("lockout_guard_paths", ["/etc/../x"]),
        ("ssh_max_startups", "10"),
    ],
)
def test_invalid_setting_is_rejected(name, value):
    assert names(rejected(settings_of({name: value}), {})) == [name]


@pytest.mark.parametrize("name", NUMBERS)
def test_number_below_the_minimum_is_rejected(name):
    assert names(rejected(settings_of({name: NUMBERS[name][0] - 1}), {})) == [name]


@pytest.mark.parametrize(
    ("checks", "name", "value"),
    [
        (fail2ban_checks, "fail2ban_ban_time_max", 60),
        (lockout_guard_checks, "lockout_guard_timeout", 39),
    ],
)
def test_settings_that_contradict_another_are_rejected(checks, name, value):
    settings = DEFAULTS | {name: value}
    assert names(rejected(checks(settings), settings)) == [name]


def test_apps_share_the_memory_of_the_host():
    blog = {"flaskstack_base_blog": {"app": "blog", "memory": 1024}}
    facts = {"memtotal_mb": 1967, "ansible_local": blog}
    assert rejected(memory_checks(facts, "shop", "host", 1024)) == []
    (message,) = rejected(memory_checks(facts, "shop", "host", 1280))
    assert message.startswith("host_memory is 1280: must leave room for the other apps of host")
    assert "(blog uses 1024)" in message
    assert "for example: host_memory: 1041" in message
    assert rejected(memory_checks(facts, "blog", "host", 4096)) == []


GROUPS = {"app": ["app-1", "app-2"], "database": ["data"]}
HOSTVARS = {"data": {"mysql_bind_address": "10.0.0.9"}, "app-1": {}, "app-2": {}}


def firewall(hostvars=HOSTVARS, **settings):
    """Return the error messages for host data."""
    settings = DEFAULTS | settings
    return rejected(firewall_checks(settings, hostvars, GROUPS, "data", "/inventory"), settings)


def test_app_hosts_need_an_address_for_servers_on_other_hosts():
    assert firewall() == [
        "firewall_addresses is []: must have, for app-1, app-2, an address from which to connect "
        "to MySQL or Redis on data, of the same IP version as mysql_bind_address and "
        "redis_bind_address there. Set it in /inventory/host_vars/app-1.yml, for example: "
        "firewall_addresses: [10.0.0.5]"
    ]
    assert firewall(firewall_enabled=False) == []
    other_version = {
        "app-1": {"firewall_addresses": ["10.0.0.1"]},
        "app-2": {"firewall_addresses": ["2001:db8::2"]},
    }
    (message,) = firewall(HOSTVARS | other_version)
    assert message.startswith("firewall_addresses is [2001:db8::2]: must have, for app-2, an")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("firewall_rules", [{"port": "9100", "sources": ["metrics.example.org"]}]),
        ("firewall_rules", [{"port": "9100", "comment": 'x" ; flush ruleset'}]),
        ("firewall_rules", [{"port": "9100; flush ruleset"}]),
        ("firewall_ssh_rate", 5),
    ],
)
def test_invalid_setting_of_the_firewall_is_rejected(name, value):
    assert names(firewall({"data": {}}, **{name: value})) == [name]


def firewall_host(others=(), controller="203.0.113.7", owner=True, **settings):
    """Return the error messages for a host with other firewalls."""
    settings = DEFAULTS | settings
    access = {"firewalls": list(others)}
    checks = firewall_host_checks(settings, access, controller, "host", "/inventory", owner=owner)
    return rejected(checks, settings)


def test_other_enabled_firewall_is_rejected():
    (message,) = firewall_host(["ufw", "firewalld"])
    assert message.startswith("firewall_enabled is true: conflicts with ufw and firewalld, which")
    assert "sudo ufw disable" in message
    assert firewall_host(["ufw"], firewall_enabled=False) == []


def test_ssh_sources_without_the_controller_are_rejected():
    sources = {"firewall_ssh_sources": ["192.0.2.1"]}
    (message,) = firewall_host(**sources)
    assert "firewall_ssh_sources: [192.0.2.1, 203.0.113.7]" in message
    assert firewall_host(owner=False, **sources) == []
    assert firewall_host(controller="", **sources) == []
    assert firewall_host(firewall_ssh_sources=["203.0.113.0/24"]) == []


KEY = "ssh-ed25519 " + "A" * 68


def ssh(connects="", **settings):
    """Return the variables that are rejected without facts of the host."""
    settings = DEFAULTS | settings
    return names(rejected(ssh_checks(settings, ["shop", "shop-build"], connects, "host"), settings))


@pytest.mark.parametrize(
    "user",
    [
        {"name": "anna", "keys": [KEY + " anna@laptop\n"], "sudo": True, "state": "present"},
        {"name": "anna", "keys": [f'from="10.0.0.0/8,::1",restrict,command="x y" {KEY}']},
        {"name": "root", "keys": [KEY]},
        {"name": "bert", "state": "absent"},
    ],
)
def test_valid_user_is_accepted(user):
    assert ssh(ssh_users=[user]) == []


@pytest.mark.parametrize(
    "users",
    [
        [{"name": "Anna", "keys": [KEY]}],
        [{"name": "anna:x", "keys": [KEY]}],
        [{"name": "anna"}],
        [{"name": "anna", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}],
        [{"name": "anna", "keys": [KEY, ""]}],
        [{"name": "anna", "keys": ["ssh-dss " + "A" * 68]}],
        [{"name": "anna", "keys": [KEY]}, {"name": "anna", "state": "absent"}],
        [{"name": "shop-build", "keys": [KEY]}],
        [{"name": "root", "state": "absent"}],
    ],
)
def test_invalid_user_is_rejected(users):
    assert ssh(ssh_users=users) == ["ssh_users"]


def test_login_of_the_inventory_is_kept():
    leaving = [{"name": "deploy", "state": "absent"}]
    assert ssh("deploy", ssh_users=leaving) == ["ssh_users"]
    assert ssh("root", ssh_permit_root="no") == ["ssh_permit_root"]
    assert ssh("deploy", ssh_permit_root="no") == []


ACCESS = {
    "users": {
        "root": ["x", "0", "0", "", "/root", "/bin/bash"],
        "deploy": ["x", "1000", "1000", "", "/home/deploy", "/bin/bash"],
        "backup": ["x", "34", "34", "", "/var/backups", "/usr/sbin/nologin"],
    },
    "groups": ["root", "docker"],
    "sshd": ["authorizedkeyscommand none", "trustedusercakeys none"],
    "has_key": True,
    "has_sudo_rule": False,
}


def ssh_host(user="deploy", behind=(), access=ACCESS, **settings):
    """Return the variables that are rejected because of the host's facts."""
    settings = DEFAULTS | settings
    facts = {"access": access, "user_id": user}
    checks = ssh_host_checks(settings, facts, "host", list(behind), "/inventory")
    return names(rejected(checks, settings))


def test_login_of_the_connection_is_kept():
    assert ssh_host() == []
    assert ssh_host("root", ssh_permit_root="no") == ["ssh_permit_root"]
    assert ssh_host(ssh_users=[{"name": "deploy", "state": "absent"}]) == ["ssh_users"]


def test_login_of_the_connection_needs_a_key_or_a_certificate():
    keyless = ACCESS | {"has_key": False}
    assert ssh_host(access=keyless) == ["ssh_users"]
    assert ssh_host(access=keyless, ssh_users=[{"name": "deploy", "keys": [KEY]}]) == []
    assert ssh_host(access=keyless | {"sshd": ["authorizedkeyscommand none"]}) == []


def test_login_of_the_connection_needs_its_sudo_rule():
    own = {"ssh_users": [{"name": "deploy", "keys": [KEY], "sudo": False}]}
    assert ssh_host(access=ACCESS | {"has_sudo_rule": True}, **own) == ["ssh_users"]
    assert ssh_host(**own) == []


@pytest.mark.parametrize("name", ["backup", "docker"])
def test_names_of_system_users_and_groups_are_rejected(name):
    assert ssh_host(ssh_users=[{"name": name, "keys": [KEY]}]) == ["ssh_users"]


def test_jump_host_needs_tcp_forwarding():
    assert ssh_host(behind=["data"]) == ["ssh_tcp_forwarding"]
    assert ssh_host(behind=["data"], ssh_tcp_forwarding=True) == []
