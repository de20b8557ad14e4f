"""Say which secrets a rotation is about, and why one that was asked for cannot be rotated."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

Plan = dict[str, list[str]]


def secret_digest(secret: str) -> str:
    """Return the digest of a secret; empty where there is none."""
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""


def rotation_plan(
    own: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Any],
    groups: Mapping[str, list[str]],
    asked: str,
    folder: str,
    retire: bool = False,
) -> Plan:
    """Return what is rotated, and what is refused; nothing is where the old ones are retired.

    `own` has for each secret of the stack its `variable`, the digests of what the inventory gives
    for it (`present`) and for what it was `before`, empty where it gives none, and the `groups`
    whose hosts have to know it. `files` is what module `secret_files` says. `asked` are names with
    commas between; empty is all that can be.

    In the plan, `made` are those that are made anew in files, `given` those whose new and old value
    the inventory gives itself, `names` all of them. `later` was asked for, while a rotation that
    was cut is about others.
    """
    if retire:
        return _retirement(files, asked)
    wanted = [name for name in re.split(r"[,\s]+", asked) if name]
    made = [name for name in own if _is_made(own[name], files["present"].get(name))]
    given = [name for name in own if name not in made and _is_given(own[name])]
    here = [name for name in own if all(groups.get(group) for group in own[name]["groups"])]
    made, given = ([name for name in names if name in here] for names in (made, given))
    refusals = []
    if files["under_way"]:
        made, later = list(files["under_way"]), sorted(set(wanted) - {*files["under_way"], *given})
        return {"made": made, "given": given, "names": made + given, "later": later, "refusals": []}
    for name in wanted:
        if name not in own and name in files["present"]:
            made.append(name)
        elif name not in {*made, *given}:
            refusals.append(_refusal(name, own, files, name in here, folder))
    if wanted:
        made, given = ([name for name in names if name in wanted] for names in (made, given))
    elif not made and not given:
        refusals.append(
            f"Nothing is rotated: no secret of the stack is generated in {folder}, and the"
            " inventory gives none of before, such as app_secret_key_before. docs/secrets.md tells"
            " how a secret of a vault is rotated"
        )
    return {"made": made, "given": given, "names": made + given, "later": [], "refusals": refusals}


def _retirement(files: Mapping[str, Any], asked: str) -> Plan:
    nothing: Plan = {"made": [], "given": [], "names": [], "later": [], "refusals": []}
    if files["under_way"]:
        reason = f"a rotation of {', '.join(files['under_way'])} was cut"
    elif asked:
        reason = "rotate_secrets asks for new secrets"
    else:
        return nothing
    again = "Run this without -e rotate_secrets_retire=true first"
    return nothing | {"refusals": [f"Nothing is retired, as {reason}. {again}"]}


def _is_made(secret: Mapping[str, Any], digest: str | None) -> bool:
    return bool(secret["present"]) and secret["present"] == digest


def _is_given(secret: Mapping[str, Any]) -> bool:
    return bool(secret["present"] and secret["before"]) and secret["before"] != secret["present"]


def _refusal(
    name: str,
    own: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Any],
    here: bool,
    folder: str,
) -> str:
    if name not in own:
        others = [file for file in files["present"] if file not in own]
        return (
            f"{name} is no secret of this inventory. There are {', '.join([*own, *others])}; a"
            " name is that of a file in " + folder
        )
    variable = own[name]["variable"]
    if not own[name]["present"]:
        return f"{name} cannot be rotated: the app has none, as {variable} is not set"
    if not here:
        return (
            f"{name} cannot be rotated from here, as no host of this inventory is in group"
            f" {' or '.join(own[name]['groups'])}. Change it where it is kept, then set {variable}"
            " and run site.yml"
        )
    return (
        f"{name} is not made anew, as {variable} does not come from {folder}/{name}.txt. Where the"
        f" inventory keeps it (in ansible-vault or SOPS, say), give {variable} its new value and"
        f" {variable}_before the one that it has now. Then run this again; docs/secrets.md has the"
        " commands"
    )


def unread_before(
    plan: Plan, own: Mapping[str, Mapping[str, Any]], files: Mapping[str, Any], folder: str
) -> list[str]:
    """Say which variables do not read the files that hold the secrets of before."""
    return [
        f"{own[name]['variable']}_before: does not read {folder}/{name}.before.txt, so the old"
        f" secret would be refused at once. Set it beside {own[name]['variable']}, to:"
        f" \"{{{{ lookup('ansible.builtin.file', '{folder}/{name}.before.txt', errors='ignore')"
        " | default('', true) }}\""
        for name in plan["made"]
        if name in own and own[name]["before"] != files["before"].get(name)
    ]


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "rotation_plan": rotation_plan,
            "secret_digest": secret_digest,
            "unread_before": unread_before,
        }
