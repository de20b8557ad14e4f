#!/usr/bin/python
"""Gather SSH, login user and firewall facts in one call."""

from __future__ import annotations

import grp
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: access_facts
short_description: Gather SSH, login and firewall facts
description:
  - Returns the fact C(access), which roles ssh and firewall read. Requires root.
  - Changes nothing, except that it creates /run/sshd if sshd has not started yet.
options:
  user:
    description: User that Ansible logs in as.
    type: str
    required: true
  address:
    description: Address of the controller as the host sees it; empty for a connection without one.
    type: str
    default: ""
author: Flaskstack
"""
RETURN = """
ansible_facts:
  description:
    - C(access) with C(users) (name → [password, uid, gid, comment, home, shell]), C(groups) (their
      names), C(sshd) (the settings that C(sshd -T) prints for this login, as C(keyword value)),
      C(sshd_algorithms) (ciphers, key exchanges and MACs that sshd enables by default),
      C(sshd_runs) (whether ssh.service is active), C(sshd_includes) (whether sshd_config includes
      sshd_config.d), C(has_key) (whether the login user has a public key), C(has_sudo_rule)
      (whether Flaskstack manages the login user's sudo rule), C(firewalls) (other firewalls that
      are enabled) and C(has_rules) (whether Flaskstack's rules exist).
  returned: always
  type: dict
"""
SSHD = "/usr/sbin/sshd"
RUN = Path("/run/sshd")
ALGORITHMS = ("ciphers ", "kexalgorithms ", "macs ")
KEY = re.compile(r"^[^#]*(ssh-|ecdsa-|sk-)", re.MULTILINE)
INCLUDE = re.compile(r"^\s*Include\s.*sshd_config[.]d/[*][.]conf", re.MULTILINE | re.IGNORECASE)
UFW_ENABLED = re.compile(r"^ENABLED=yes", re.MULTILINE)


def gather(user: str, address: str, root: Path = Path("/")) -> dict[str, Any]:
    """Return the fact `access`, reading files below `root`.

    Raises:
        subprocess.CalledProcessError: sshd rejects its configuration.
    """
    users = {account.pw_name: [str(field) for field in account[1:]] for account in pwd.getpwall()}
    home = users[user][4] if user in users else "/root"
    client = address or "127.0.0.1"
    return {
        "users": users,
        "groups": sorted(group.gr_name for group in grp.getgrall()),
        "sshd": _sshd("-C", f"user={user},host={client},addr={client}"),
        "sshd_algorithms": _algorithms(_sshd("-f", "/dev/null")),
        "sshd_runs": _runs("ssh.service"),
        "sshd_includes": _contains(root / "etc/ssh/sshd_config", INCLUDE),
        "has_key": _contains(root / home.lstrip("/") / ".ssh/authorized_keys", KEY),
        "has_sudo_rule": (root / f"etc/sudoers.d/flaskstack_{user}").exists(),
        "firewalls": _firewalls(root),
        "has_rules": (root / "etc/flaskstack/firewall.nft").exists(),
    }


def _sshd(*arguments: str) -> list[str]:
    """Return the settings that `sshd -T` prints; an empty list on a host without sshd.

    Keywords are in lower case, as OpenSSH 10.0 prints them; OpenSSH 10.6 prints `AllowUsers`.
    """
    if not Path(SSHD).exists():
        return []
    # sshd requires this directory. With ssh.socket it exists only after the first connection.
    RUN.mkdir(mode=0o755, exist_ok=True)
    command = [SSHD, "-T", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pairs = (line.partition(" ") for line in output.splitlines() if line)
    return [f"{keyword.lower()} {value}" for keyword, _, value in pairs]


def _algorithms(settings: list[str]) -> list[str]:
    lists = [line.split(" ")[1] for line in settings if line.startswith(ALGORITHMS)]
    return ",".join(lists).split(",")


def _runs(unit: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", "is-active", unit], check=False).returncode == 0


def _contains(file: Path, pattern: re.Pattern[str]) -> bool:
    return file.is_file() and bool(pattern.search(file.read_text(errors="replace")))


def _firewalls(root: Path) -> list[str]:
    units = root / "etc/systemd/system"
    # With this drop-in, nftables.service loads only Flaskstack's rules.
    own = (units / "nftables.service.d/flaskstack.conf").exists()
    found = {
        "ufw": _contains(root / "etc/ufw/ufw.conf", UFW_ENABLED),
        "firewalld": (units / "multi-user.target.wants/firewalld.service").is_symlink(),
        "nftables": (units / "sysinit.target.wants/nftables.service").is_symlink() and not own,
    }
    return [name for name, enabled in found.items() if enabled]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"user": {"required": True}, "address": {"default": ""}},
        supports_check_mode=True,
    )
    try:
        facts = gather(module.params["user"], module.params["address"])
    except subprocess.CalledProcessError as error:
        module.fail_json(msg=f"sshd does not accept its configuration: {error.stderr.strip()}")
    module.exit_json(ansible_facts={"access": facts})


if __name__ == "__main__":
    main()
