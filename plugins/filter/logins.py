"""Who may log in: what an inventory says of its users, with what the host knows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# On Debian and Ubuntu the users of services have lower numbers than those of people.
FIRST_OF_PEOPLE = 1000
NOBODY = 65534
NO_SHELLS = ("/nologin", "/false")


def logins(
    users: Iterable[Mapping[str, Any]], passwd: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return each user with all that it leaves out, and its account.

    `passwd` is what getent says: name → [password, number, group, comment, home, shell].
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
    """Return the hosts that others are reached through: name → names of those.

    `addresses` are the hosts' own, `clients` what SSH_CONNECTION is on each. The controller may be
    one of the hosts; then others see its address, and nothing passes through it.
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
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"jump_hosts": jump_hosts, "logins": logins}
