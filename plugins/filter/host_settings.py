"""Values that roles base, fail2ban, firewall and ssh derive from host facts and the inventory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from networks import not_networks

Facts = Mapping[str, Any]
SWAP_FILE_SYSTEMS = {"ext3", "ext4", "xfs"}
SERVICES = {
    "dbus": "dbus.socket",  # timedatectl needs it
    "systemd-timesyncd": "systemd-timesyncd.service",
    "unattended-upgrades": "unattended-upgrades.service",
}


def host_owner(facts: Facts, app: str) -> str:
    """Return the app that owns the settings of the host: the first one that was installed on it."""
    return (_local(facts).get("flaskstack_base") or {}).get("app", app)


def other_apps(facts: Facts, role: str, app: str) -> list[Facts]:
    """Return the local facts of a role that the other apps of the host have recorded."""
    records = [
        value for key, value in _local(facts).items() if key.startswith(f"flaskstack_{role}_")
    ]
    return [record for record in records if record["app"] != app]


def _local(facts: Facts) -> Facts:
    return facts.get("ansible_local") or {}


def in_container(facts: Facts) -> bool:
    """Return whether the host is a container, which shares its machine's kernel, clock and swap."""
    return "container" in facts["virtualization_tech_guest"]


def host_services(packages: Iterable[str], facts: Facts) -> list[str]:
    """Return the units to enable for these packages. Role `packages` does not start services."""
    clock = {"systemd-timesyncd"} if in_container(facts) else set()
    return [unit for name, unit in SERVICES.items() if name in packages and name not in clock]


def swap_obstacle(facts: Facts) -> str:
    """Return why the host cannot have a swap file; empty if it can."""
    if in_container(facts):
        return "a container uses the swap of its machine"
    types = [mount["fstype"] for mount in facts["mounts"] if mount["mount"] == "/"]
    kind = types[0] if types else "unknown"
    if kind in SWAP_FILE_SYSTEMS:
        return ""
    return f"/ is {kind}, which needs special care for swap files"


def never_banned(
    hostvars: Mapping[str, Facts], hosts: Iterable[str], controller: str, more: Iterable[str]
) -> list[str]:
    """Return the known addresses of the controller and the hosts, and those of `more`."""
    found = {controller, *more}
    for host in hosts:
        settings = hostvars[host]
        facts = settings.get("ansible_facts") or {}
        found |= {settings.get("ansible_host", ""), *settings.get("firewall_addresses", [])}
        found |= {*facts.get("all_ipv4_addresses", []), *facts.get("all_ipv6_addresses", [])}
    names = not_networks(found)
    return sorted(item for item in found if item not in names and not item.startswith("fe80:"))


def fail2ban_jails(retries: Mapping[str, Any], app: str, *, owner: bool, edge: bool) -> list[str]:
    """Return the enabled jails: sshd of the host's owner, the others on hosts of group edge."""
    jails = {"sshd": "ssh"} if owner else {}
    if edge:
        jails |= {"nginx-refused": "refused"}
        jails |= {f"{app}-{name}": name for name in ("probes", "missing", "denied")}
    return [jail for jail, name in jails.items() if int(retries[name])]


def ssh_ports(sshd: Sequence[str], connection: str, more: Iterable[Any]) -> list[int]:
    """Return the SSH ports of a host: from `sshd -T`, SSH_CONNECTION and `more`.

    `ansible_port` is not used: it may be a forwarded port of another host.
    """
    found = [line.rpartition(":")[2] for line in sshd if line.startswith("listenaddress ")]
    return sorted({int(port) for port in (*found, *connection.split()[3:], *more)}) or [22]


def sshd_algorithms(
    supported: Sequence[str], *offered: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the offered values of KexAlgorithms, Ciphers and MACs that sshd supports."""
    return {
        keyword: ",".join(
            name for each in offered for name in each.get(keyword, []) if name in supported
        )
        for keyword in offered[0]
    }


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        filters = (fail2ban_jails, host_owner, host_services, in_container, never_banned)
        return {
            item.__name__: item
            for item in (*filters, other_apps, ssh_ports, sshd_algorithms, swap_obstacle)
        }
