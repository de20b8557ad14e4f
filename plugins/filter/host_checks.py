"""Checks of the settings of roles base, fail2ban, firewall, lockout_guard and ssh.

They are for filter `problems`, which adds the values of the settings to the messages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from firewall import contains_address, hosts_without_address
from host_settings import other_apps
from logins import grouped_logins, logins
from networks import not_networks
from problems import Check, check, none_of
from quotes import not_lines

Settings = Mapping[str, Any]

# Minimum, description of valid numbers, example.
NUMBERS: dict[str, tuple[int, str, int]] = {
    "base_swap_size": (0, "a number of MiB, or 0 for none", 1024),
    "base_shell_timeout": (0, "a number of seconds, or 0 for no timeout", 1800),
    "base_journal_size": (1, "1 MiB or more", 500),
    "base_journal_runtime_size": (1, "1 MiB or more", 50),
    "base_journal_retention": (1, "1 day or more", 30),
    "base_journal_rate_limit": (1, "1 message or more", 10000),
    "base_failure_interval": (1, "1 minute or more", 60),
    "fail2ban_find_time": (1, "1 second or more", 600),
    "fail2ban_ban_time": (1, "1 second or more", 3600),
    "fail2ban_ssh_retries": (0, "0 (no ban) or more", 5),
    "fail2ban_probe_retries": (0, "0 (no ban) or more", 5),
    "fail2ban_missing_retries": (0, "0 (no ban) or more", 100),
    "fail2ban_denied_retries": (0, "0 (no ban) or more", 300),
    "fail2ban_refused_retries": (0, "0 (no ban) or more", 100),
    "firewall_ssh_burst": (10, "at least 10 connections, which Ansible may need", 60),
    "firewall_log_rate": (0, "a number of packets a minute, or 0 for no log", 10),
    "lockout_guard_connect_timeout": (5, "5 seconds or more, for a slow network", 30),
    "ssh_max_auth_tries": (1, "1 or more", 6),
    "ssh_max_sessions": (1, "1 or more", 10),
    "ssh_login_grace_time": (1, "1 second or more", 30),
    "ssh_alive_interval": (1, "1 second or more", 120),
    "ssh_alive_count": (1, "1 or more", 2),
}
CLOCK = r"([01]\d|2[0-3]):[0-5]\d", "a time of the day"
SYSCTL = "[a-z0-9_.*/-]+", "a map of sysctl keys to values of one line"
ORIGINS = r'[^"\n]+', "a list of patterns without quotes"
# Pattern of a text, of each list item or of each map key; description of valid values; example.
PATTERNS: dict[str, tuple[str, str, Any]] = {
    "base_timezone": (
        "[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*",
        "a file name below /usr/share/zoneinfo",
        "Europe/Berlin",
    ),
    "base_failure_webhook": (
        r"(https?://[^\s/]+\S*)?",
        'an http or https URL, or "" for none',
        "https://hooks.example.org/…",
    ),
    "base_kernel_settings": (*SYSCTL, {"net.core.somaxconn": 4096}),
    "base_kernel_hardening": (*SYSCTL, {"kernel.kptr_restrict": 2}),
    "base_blocked_modules": ("[A-Za-z0-9_-]+", "a list of kernel modules", ["dccp", "usb-storage"]),
    "base_upgrade_origins": (*ORIGINS, ["origin=Debian,label=Debian-Security"]),
    "base_upgrade_excluded": (*ORIGINS, ["mariadb-"]),
    "base_upgrade_time": (*CLOCK, "06:00"),
    "base_upgrade_reboot_time": (*CLOCK, "03:30"),
    "base_package_check": (
        "[A-Za-z0-9 *:,./~-]*",
        'an OnCalendar expression of systemd, or "" for never',
        "weekly",
    ),
    "base_restart_window": (
        "[A-Za-z0-9 *:,./~-]*",
        'an OnCalendar expression of systemd, or "" for never',
        "Sun 04:00",
    ),
    "base_umask": ("0?[0-7]{3}", "three octal digits in quotes", "027"),
    "lockout_guard_name": (
        "[a-z][a-z0-9_]{0,30}",
        "lower-case letters, digits and underscores, since it names units and a directory",
        "firewall",
    ),
    "lockout_guard_paths": (
        r"(/(?![.]{1,2}(/|\Z))[A-Za-z0-9@._-]+){2,}",
        "absolute paths, and no top-level directories",
        ["/etc/flaskstack/firewall.nft"],
    ),
    "ssh_max_startups": (
        r"[1-9]\d*:\d{1,3}:[1-9]\d*",
        "start:rate:full, see MaxStartups in man sshd_config",
        "10:30:60",
    ),
}
NETWORKS = {
    "fail2ban_ignore": ["203.0.113.7", "2001:db8::/48"],
    "firewall_addresses": ["10.0.0.5"],
    "firewall_ssh_sources": ["203.0.113.7", "2001:db8:7::/48"],
    "firewall_web_sources": ["10.0.0.0/24"],
    "ssh_penalty_exempt": ["203.0.113.7"],
}
PORTS = {"fail2ban_ssh_ports": [22], "fail2ban_web_ports": [80, 443], "firewall_ssh_ports": [2022]}


def setting_checks(settings: Settings, role: str) -> Iterable[Check]:
    """Return the checks of a role that concern one setting each."""
    for name, value in settings.items():
        if not name.startswith(f"{role}_"):
            continue
        if name in NUMBERS:
            least, kind, example = NUMBERS[name]
            yield check(name, value >= least, f"must be {kind}", example=example)
        elif name in PATTERNS:
            pattern, kind, example = PATTERNS[name]
            yield check(name, _matches(value, pattern), f"must be {kind}", example=example)
        elif name in NETWORKS:
            invalid, example = not_networks(value), NETWORKS[name]
            yield none_of(name, invalid, "must be IP addresses or networks", example=example)
        elif name in PORTS:
            fits = all(0 < port < 65536 for port in value) and (value or role == "firewall")
            yield check(name, fits, "must be ports from 1 to 65535", example=PORTS[name])


def _matches(value: Any, pattern: str) -> bool:
    texts = [value] if isinstance(value, str) else value
    lines = not (isinstance(value, Mapping) and not_lines(value))
    return lines and all(re.fullmatch(pattern, str(text)) for text in texts)


def memory_checks(facts: Settings, app: str, host: str, memory: int) -> Iterable[Check]:
    """Return the check that the apps of a host fit into its memory. All sizes are in MiB.

    The limit is 5% above the reported memory, because the kernel reports less than the nominal one.
    """
    others = other_apps(facts, "base", app)
    total = facts.get("memtotal_mb") or 0
    left = int(total * 1.05) - sum(int(other["memory"]) for other in others)
    shares = ", ".join(f"{other['app']} uses {other['memory']}" for other in others)
    yield check(
        "host_memory",
        not others or not total or memory <= left,
        f"must leave room for the other apps of {host}, which has {total} MiB ({shares}). "
        "host_memory is the share of one app, so each inventory needs its own; run site.yml with "
        "the other one first",
        value=memory,
        example=max(left, 512),
    )


def fail2ban_checks(settings: Settings) -> Iterable[Check]:
    """Return the checks of role fail2ban that concern more than one setting."""
    first = settings["fail2ban_ban_time"]
    yield check(
        "fail2ban_ban_time_max",
        settings["fail2ban_ban_time_max"] >= first,
        f"must not be less than the first ban's fail2ban_ban_time ({first})",
        example=first * 168,
    )


def lockout_guard_checks(settings: Settings) -> Iterable[Check]:
    """Return the checks of role lockout_guard that concern more than one setting."""
    connect = settings["lockout_guard_connect_timeout"]
    yield check(
        "lockout_guard_timeout",
        settings["lockout_guard_timeout"] >= connect + 10,
        f"must exceed lockout_guard_connect_timeout ({connect}) by 10 seconds or more",
        example=max(connect + 10, 120),
    )


RULE = [{"port": 9100, "sources": ["10.0.0.9"], "comment": "metrics"}]


def firewall_checks(
    settings: Settings, hostvars: Settings, groups: Settings, host: str, inventory_dir: str
) -> Iterable[Check]:
    """Return the checks of role firewall that need no facts of the host."""
    rules = settings["firewall_rules"]
    yield none_of(
        "firewall_rules",
        not_networks(source for rule in rules for source in rule.get("sources") or []),
        "must have IP addresses or networks as sources",
        example=RULE,
    )
    yield none_of(
        "firewall_rules",
        [
            rule
            for rule in rules
            if not re.fullmatch(r"\d{1,5}(-\d{1,5})?", str(rule["port"]))
            or not re.fullmatch("[A-Za-z0-9 .,:/()_-]{0,60}", rule.get("comment") or "")
        ],
        "must have a port such as 9100 or 60000-60010, and a comment of at most 60 letters, "
        "digits, spaces and .,:/()_-",
        example=RULE,
    )
    rate = settings["firewall_ssh_rate"]
    yield check(
        "firewall_ssh_rate",
        rate == 0 or rate >= 6,
        "must be at least 6 connections a minute, which Ansible may need, or 0 for no limit",
        example=30,
    )
    missing = hosts_without_address(hostvars, groups, host)
    yield check(
        "firewall_addresses",
        not settings["firewall_enabled"] or not missing,
        f"must have, for {', '.join(missing)}, an address from which to connect to MySQL or Redis "
        f"on {host}, of the same IP version as mysql_bind_address and redis_bind_address there",
        value=hostvars[missing[0]].get("firewall_addresses", []) if missing else [],
        remedy=f"Set it in {inventory_dir}/host_vars/{''.join(missing[:1])}.yml, for example: "
        "firewall_addresses: [10.0.0.5]",
    )


def firewall_host_checks(
    settings: Settings,
    access: Settings,
    controller: str,
    host: str,
    inventory_dir: str,
    *,
    owner: bool,
) -> Iterable[Check]:
    """Return the checks of role firewall against the fact `access` of a host."""
    enabled, others = settings["firewall_enabled"], access["firewalls"]
    yield check(
        "firewall_enabled",
        not enabled or not others,
        f"conflicts with {' and '.join(others)}, which is enabled on {host}; each of the two would "
        "drop what the other allows",
        remedy="Disable it (sudo ufw disable, sudo systemctl disable --now firewalld, or sudo "
        "systemctl disable --now nftables), or keep it, with firewall_enabled: false in "
        f"{inventory_dir}/group_vars/all/main.yml",
    )
    sources = settings["firewall_ssh_sources"]
    yield check(
        "firewall_ssh_sources",
        not (owner and enabled and controller) or contains_address(sources, controller),
        f"does not contain this controller, which {host} sees at {controller}",
        example=[*sources, controller],
    )


KEY_OPTION = '[a-zA-Z-]+(="[^"]*")?'
KEY_TYPE = "ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|"
KEY_TYPE += "sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh[.]com"
KEY = re.compile(
    rf"({KEY_OPTION}(,{KEY_OPTION})* )?({KEY_TYPE}) [A-Za-z0-9+/]{{60,}}={{0,3}}( [^\n]*)?\s*"
)
KEY_EXAMPLE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…, the line of ~/.ssh/id_ed25519.pub"
USER = {"name": "anna", "keys": [KEY_EXAMPLE], "sudo": True}
ABSENT = {"name": "anna", "state": "absent"}
ROOT_NEEDED = (
    "must be prohibit-password, since {} connects to {} as root. Add a user with sudo to ssh_users "
    "first, then connect as that one"
)


def ssh_checks(settings: Settings, own: Sequence[str], connects: str, host: str) -> Iterable[Check]:
    """Return the checks of role ssh that need no facts of the host.

    `own` are the app's users; `connects` is ansible_user, or empty.
    """
    permit_root = settings["ssh_permit_root"] != "no" or connects != "root"
    reason = ROOT_NEEDED.format("the inventory (ansible_user)", host)
    yield check("ssh_permit_root", permit_root, reason, example="prohibit-password")
    users = logins(settings["ssh_users"], {})
    names = [user["name"] for user in users]
    lines = "".join(user["authorized"] for user in users).splitlines()
    present = [user for user in users if user["present"]]
    absent = {user["name"] for user in users if not user["present"]}
    invalid = {
        "must have names of lower-case letters, digits, underscores and dashes": [
            name for name in names if not re.fullmatch("[a-z_][a-z0-9_-]{0,30}", name)
        ],
        "must name each user once": sorted({name for name in names if names.count(name) > 1}),
        "must not contain the app's own users": [name for name in names if name in own],
        "must have public keys in OpenSSH's format, one line each": [
            line for line in lines if not KEY.fullmatch(line)
        ],
        "must have a key for each of these users, or state absent to remove the user": [
            user["name"] for user in present if not user["authorized"]
        ],
        f"must not remove root or the user that the inventory connects to {host} as": sorted(
            absent & {"root", connects}
        ),
    }
    for reason, values in invalid.items():
        yield none_of("ssh_users", values, reason, example=[USER, ABSENT])


def ssh_host_checks(
    settings: Settings, facts: Settings, host: str, behind: Sequence[str], inventory_dir: str
) -> Iterable[Check]:
    """Return the checks of role ssh against the facts of a host.

    `behind` are the hosts for which this one is the jump host.
    """
    access, user = facts["access"], facts["user_id"]
    users = logins(settings["ssh_users"], access["users"])
    found = grouped_logins(settings["ssh_users"], access["users"], user)
    own = found["current"]
    permit_root = settings["ssh_permit_root"] != "no" or user != "root"
    reason = ROOT_NEEDED.format("Ansible", host)
    yield check("ssh_permit_root", permit_root, reason, example="prohibit-password")

    connects = f"{user}, the user that Ansible connects to {host} as"
    only_keys = {"authorizedkeyscommand none", "trustedusercakeys none"} <= set(access["sshd"])
    keyless = not own and not access["has_key"] and only_keys
    loses_sudo = user != "root" and own and not own["sudo"] and access["has_sudo_rule"]
    invalid = {
        f"must not remove {connects}": [name for name in found["removed"] if name == user],
        f"must not contain system users of {host}": [
            login["name"] for login in users if login["system"]
        ],
        f"must not have names of existing groups on {host}, since each user gets its own group": [
            name for name in found["new"] if name in access["groups"]
        ],
        f"must have a key for {connects}. The authorized_keys there have none, and sshd will "
        "accept only keys": [user] if keyless else [],
        f"must have sudo for {connects}": [user] if loses_sudo else [],
    }
    for reason, values in invalid.items():
        yield none_of("ssh_users", values, reason, example=[USER | {"name": user}])
    yield check(
        "ssh_tcp_forwarding",
        settings["ssh_tcp_forwarding"] or not behind,
        f"must be true for {host}, the jump host of {', '.join(behind)}",
        remedy=f"Set ssh_tcp_forwarding: true in {inventory_dir}/host_vars/{host}.yml",
    )


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        filters = (fail2ban_checks, firewall_checks, firewall_host_checks, lockout_guard_checks)
        filters += (memory_checks, setting_checks, ssh_checks, ssh_host_checks)
        return {item.__name__: item for item in filters}
