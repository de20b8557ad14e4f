"""Login users and jump hosts, from the inventory and facts of the hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# On Debian and Ubuntu, system users have lower user IDs than login users.
FIRST_USER_ID = 1000
NOBODY = 65534
NO_SHELLS = ("/nologin", "/false")

Login = dict[str, Any]
Passwd = Mapping[str, Sequence[str]]


def logins(users: Iterable[Mapping[str, Any]], passwd: Passwd) -> list[Login]:
    """Return each user with defaults for omitted options, and its account.

    `passwd` is the fact access.users: name → [password, uid, gid, comment, home, shell].
    """
    return [_login(user, passwd) for user in users]


def grouped_logins(
    users: Iterable[Mapping[str, Any]], passwd: Passwd, current: str
) -> dict[str, Any]:
    """Return the users, grouped by how role ssh configures them.

    `current` is the login that Ansible uses, or empty if the inventory does not have it. `others`
    are the other logins. `new` (to create), `removed` (to remove), `sudo` and `no_sudo` (others
    with and without sudo) are lists of names.
    """
    found = logins(users, passwd)
    present = [login for login in found if login["present"]]
    others = [login for login in found if login["name"] != current]
    sudo = [login["name"] for login in others if login["present"] and login["sudo"]]
    return {
        "current": next((login for login in present if login["name"] == current), {}),
        "others": others,
        "new": [login["name"] for login in present if login["new"]],
        "removed": [login["name"] for login in found if not (login["present"] or login["new"])],
        "sudo": sudo,
        "no_sudo": [login["name"] for login in others if login["name"] not in sudo],
    }


def _login(user: Mapping[str, Any], passwd: Passwd) -> Login:
    name = user["name"]
    account = passwd.get(name)
    return {
        "name": name,
        "authorized": "".join(f"{line.strip()}\n" for line in user.get("keys") or []),
        "sudo": bool(user.get("sudo")),
        "present": (user.get("state") or "present") == "present",
        "new": account is None,
        "system": account is not None and name != "root" and not _may_log_in(account),
    }


def _may_log_in(account: Sequence[str]) -> bool:
    uid, shell = int(account[1]), account[5]
    return uid >= FIRST_USER_ID and uid != NOBODY and not shell.endswith(NO_SHELLS)


def hosts_behind(
    hostvars: Mapping[str, Mapping[str, Any]], names: Iterable[str], jump_host: str
) -> list[str]:
    """Return the hosts of this run that are reached through the jump host.

    These hosts see an address of the jump host as their SSH client. A controller that is itself one
    of the hosts is also seen by the others, but it is not a jump host.
    """
    facts = {name: hostvars[name].get("ansible_facts") or {} for name in names}
    clients = {name: _client(found) for name, found in facts.items()}
    own = facts.get(jump_host, {}).get("all_ipv4_addresses", [])
    if clients.get(jump_host, "") in {"", "127.0.0.1", "::1", *own}:
        return []
    return sorted(name for name, client in clients.items() if name != jump_host and client in own)


def _client(facts: Mapping[str, Any]) -> str:
    return (facts.get("env") or {}).get("SSH_CONNECTION", "").split(" ")[0]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"grouped_logins": grouped_logins, "hosts_behind": hosts_behind}
