"""Login users and jump hosts, from the inventory and facts of the hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# On Debian and Ubuntu, system users have lower user IDs than login users.
FIRST_OF_PEOPLE = 1000
NOBODY = 65534
NO_SHELLS = ("/nologin", "/false")


def logins(
    users: Iterable[Mapping[str, Any]], passwd: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return each user with defaults for omitted options, and its account.

    `passwd` is the result of getent: name → [password, uid, gid, comment, home, shell].
    """
    return [_login(user, passwd) for user in users]


def _login(user: Mapping[str, Any], passwd: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    name = user["name"]
    account = passwd.get(name)
    home, group = (account[4], account[2]) if account else (f"/home/{name}", name)
    return {
        "name": name,
        "authorized": "".join(f"{line.strip()}\n" for line in user.get("keys") or []),
        "sudo": bool(user.get("sudo", False)),
        "present": user.get("state", "present") == "present",
        "home": home,
        "group": group,
        "new": account is None,
        "system": account is not None and name != "root" and not _is_person(account),
    }


def _is_person(account: Sequence[str]) -> bool:
    number, shell = int(account[1]), account[5]
    return number >= FIRST_OF_PEOPLE and number != NOBODY and not shell.endswith(NO_SHELLS)


def jump_hosts(
    addresses: Mapping[str, Iterable[str]], clients: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the jump hosts: name → names of the hosts behind it.

    `addresses` are the addresses of each host, `clients` its SSH_CONNECTION. The controller may be
    one of the hosts. It is no jump host, although other hosts see its address.
    """
    clients = {host: client.split(" ")[0] for host, client in clients.items()}
    found = {}
    for host, own in addresses.items():
        if clients.get(host, "") in {"", "127.0.0.1", "::1", *own}:
            continue
        through = [other for other, client in clients.items() if other != host and client in own]
        if through:
            found[host] = sorted(through)
    return found


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"jump_hosts": jump_hosts, "logins": logins}
