"""Derived settings of roles base, fail2ban, firewall and ssh."""

import pytest

from host_settings import (
    fail2ban_jails,
    host_owner,
    host_services,
    never_banned,
    other_apps,
    ssh_ports,
    sshd_algorithms,
    swap_obstacle,
)

SERVER = {
    "virtualization_tech_guest": ["kvm"],
    "mounts": [{"mount": "/boot/efi", "fstype": "vfat"}, {"mount": "/", "fstype": "ext4"}],
}
CONTAINER = {"virtualization_tech_guest": ["container", "podman"], "mounts": []}
SHARED = {
    "ansible_local": {
        "flaskstack_base": {"app": "blog"},
        "flaskstack_base_blog": {"app": "blog", "memory": 1024},
        "flaskstack_base_shop": {"app": "shop", "memory": 512},
    }
}


def test_first_app_owns_the_host():
    assert host_owner({}, "shop") == "shop"
    assert host_owner(SHARED, "shop") == "blog"
    assert other_apps(SHARED, "base", "shop") == [{"app": "blog", "memory": 1024}]


@pytest.mark.parametrize(
    ("facts", "obstacle"),
    [
        (SERVER, ""),
        (CONTAINER, "a container uses the swap of its machine"),
        (SERVER | {"mounts": [{"mount": "/", "fstype": "btrfs"}]}, "/ is btrfs, which needs"),
        (SERVER | {"mounts": []}, "/ is unknown, which needs"),
    ],
)
def test_swap_file_needs_a_suitable_file_system(facts, obstacle):
    found = swap_obstacle(facts)
    assert found.startswith(obstacle)
    assert bool(found) == bool(obstacle)


def test_services_of_the_packages_are_enabled():
    packages = ["dbus", "systemd-timesyncd", "acl"]
    assert host_services(packages, SERVER) == ["dbus.socket", "systemd-timesyncd.service"]
    assert host_services(packages, CONTAINER) == ["dbus.socket"]


def test_controller_and_hosts_are_never_banned():
    hostvars = {
        "edge": {
            "ansible_host": "203.0.113.10",
            "ansible_facts": {
                "all_ipv4_addresses": ["10.0.0.1"],
                "all_ipv6_addresses": ["fe80::1", "2001:db8::1"],
            },
        },
        "data": {"ansible_host": "data.example.org", "firewall_addresses": ["10.0.0.0/24"]},
    }
    found = never_banned(hostvars, hostvars, "203.0.113.9", ["198.51.100.7"])
    assert found == sorted(
        ["10.0.0.1", "10.0.0.0/24", "198.51.100.7", "203.0.113.9", "203.0.113.10", "2001:db8::1"]
    )
    assert never_banned(hostvars, ["data"], "", []) == ["10.0.0.0/24"]


def test_jails_are_those_of_the_owner_and_of_the_site():
    retries = {"ssh": 3, "refused": 9, "probes": 5, "missing": "0", "denied": 9}
    site = ["nginx-refused", "shop-probes", "shop-denied"]
    assert fail2ban_jails(retries, "shop", owner=True, edge=True) == ["sshd", *site]
    assert fail2ban_jails(retries, "shop", owner=False, edge=True) == site
    assert fail2ban_jails(retries, "shop", owner=True, edge=False) == ["sshd"]


def test_ssh_ports_are_those_of_sshd_and_of_the_connection():
    sshd = ["port 22", "listenaddress [::]:2022", "listenaddress 0.0.0.0:2022"]
    connection = "203.0.113.7 50000 10.0.0.9 22"
    assert ssh_ports(sshd, connection, []) == [22, 2022]
    assert ssh_ports(sshd, connection, ["2222"]) == [22, 2022, 2222]
    assert ssh_ports([], "", []) == [22]


def test_algorithms_are_those_that_sshd_supports_best_first():
    strong = {"Ciphers": ["a", "b"], "MACs": ["c", "d"]}
    assert sshd_algorithms(["e", "d", "c", "b"], strong, {"MACs": ["e", "f"]}) == {
        "Ciphers": "b",
        "MACs": "c,d,e",
    }
