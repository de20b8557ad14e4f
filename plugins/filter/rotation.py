"""Plan the rotation of secrets, select the secrets of a host, and explain rejected ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.utils.display import Display

Plan = dict[str, list[str]]


def secret_digest(secret: str) -> str:
    """Return the digest of a secret; empty for an empty one."""
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""


def rotation_plan(
    own: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Any],
    groups: Mapping[str, list[str]],
    asked: str,
    folder: str,
    revoke: bool = False,
) -> Plan:
    """Return the plan of a rotation, or an empty plan to `revoke` previous values.

    `own` has for each secret of the stack its `variable`, the digests of its `present` and
    `previous` values in the inventory (or empty), and the `groups` of the hosts that use it.
    `files` is the result of module `secret_files`. `asked` holds names, separated by commas. Empty
    means all secrets that can be rotated.

    In the plan, `generated` secrets get a new value in their file. `external` secrets have both
    values in the inventory. `names` is the union. `deferred` names are in `asked`, but an
    interrupted rotation of other secrets is completed first.
    """
    if revoke:
        return _plan(problems=_revocation_problems(files, asked))
    wanted = [name for name in re.split(r"[,\s]+", asked) if name]
    here = [name for name in own if all(groups.get(group) for group in own[name]["groups"])]
    in_file = [name for name in here if _is_generated(own[name], files["present"].get(name))]
    external = [name for name in here if name not in in_file and _is_external(own[name])]
    if running := list(files["in_progress"]):
        deferred = sorted(set(wanted) - {*running, *external})
        return _plan(generated=running, external=external, deferred=deferred)
    if not wanted:
        nothing = (
            f"Nothing is rotated: no secret of the stack is generated in {folder}, and the"
            " inventory has no previous value, such as app_secret_key_previous. docs/secrets.md"
            " explains how to rotate a secret of a vault"
        )
        return _plan(in_file, external, problems=[] if in_file or external else [nothing])
    in_file += [name for name in wanted if name not in own and name in files["present"]]
    return _plan(
        generated=[name for name in in_file if name in wanted],
        external=[name for name in external if name in wanted],
        problems=[
            _problem(name, own, files, name in here, folder)
            for name in wanted
            if name not in {*in_file, *external}
        ],
    )


def _plan(
    generated: Iterable[str] = (),
    external: Iterable[str] = (),
    deferred: Iterable[str] = (),
    problems: Iterable[str] = (),
) -> Plan:
    return {
        "generated": [*generated],
        "external": [*external],
        "names": [*generated, *external],
        "deferred": [*deferred],
        "problems": [*problems],
    }


def _revocation_problems(files: Mapping[str, Any], asked: str) -> list[str]:
    if files["in_progress"]:
        reason = f"a rotation of {', '.join(files['in_progress'])} was interrupted"
    elif asked:
        reason = "rotate_secrets names secrets to rotate"
    else:
        return []
    first = "Run this without -e secrets_revoke_previous=true first"
    return [f"Nothing is revoked, because {reason}. {first}"]


def _is_generated(secret: Mapping[str, Any], digest: str | None) -> bool:
    return bool(secret["present"]) and secret["present"] == digest


def _is_external(secret: Mapping[str, Any]) -> bool:
    return (
        bool(secret["present"] and secret["previous"]) and secret["previous"] != secret["present"]
    )


def _problem(
    name: str,
    own: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, Any],
    here: bool,
    folder: str,
) -> str:
    if name not in own:
        others = [file for file in files["present"] if file not in own]
        return (
            f"{name} is no secret of this inventory. It has {', '.join([*own, *others])}; a"
            " name is that of a file in " + folder
        )
    variable = own[name]["variable"]
    if not own[name]["present"]:
        return f"{name} cannot be rotated: {variable} is not set"
    if not here:
        return (
            f"{name} cannot be rotated from here, as no host of this inventory is in group"
            f" {' or '.join(own[name]['groups'])}. Change it where it is kept, then set {variable}"
            " and run site.yml"
        )
    return (
        f"{name} is not generated again, as {variable} does not come from {folder}/{name}.txt."
        f" Where the inventory keeps it (ansible-vault or SOPS), give {variable} its new value and"
        f" {variable}_previous the one that it has now. Then run this again; docs/secrets.md has"
        " the commands"
    )


def unread_previous(
    plan: Plan, own: Mapping[str, Mapping[str, Any]], files: Mapping[str, Any], folder: str
) -> list[str]:
    """Return messages about variables that do not read the files of previous values."""
    return [
        f"{own[name]['variable']}_previous: does not read {folder}/{name}.previous.txt, so the old"
        f" secret would be revoked at once. Set it next to {own[name]['variable']}, to:"
        f" \"{{{{ lookup('ansible.builtin.file', '{folder}/{name}.previous.txt', errors='ignore')"
        " | default('', true) }}\""
        for name in plan["generated"]
        if name in own and own[name]["previous"] != files["previous"].get(name)
    ]


def secrets_of(
    own: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, str],
    environment: Mapping[str, Any],
    secret_environment: Mapping[str, Any],
    groups: Mapping[str, list[str]],
    host: str,
) -> dict[str, dict[str, Any]]:
    """Return the secrets of a host in the form of module `secret_digests`.

    `own` are those of the stack, with their `values`. Hosts of the app have all of them and those
    of the environment, other hosts those of their groups. Passwords of servers outside the
    inventory may change freely.
    """
    found = {}
    is_app = host in groups.get("app", [])
    theirs = {**environment, **secret_environment}
    for name, secret in own.items():
        hosts = [one for group in secret["groups"] for one in groups.get(group, [])]
        variable = secret.get("environment", "")
        if is_app or host in hosts:
            found[secret["variable"]] = {
                "value": str(values[name]),
                "previous": str(values[f"{name}_previous"]),
                "strict": bool(hosts),
                "variable": "" if variable in theirs else variable,
            }
    for name, value in secret_environment.items() if is_app else []:
        found[name] = {"value": str(value), "previous": "", "strict": False, "variable": name}
    return found


def files_in(folder: str) -> list[str]:
    """Return the files of a directory of secrets. Warn if others can read it."""
    path = Path(folder)
    if path.is_dir() and path.stat().st_mode & 0o077:
        Display().warning(
            f"Every user of this machine may read {folder}: chmod -R go= {folder}. Where that does"
            " not hold, as on Windows' drives in WSL, keep the checkout in your home in Linux"
        )
    return sorted(str(file) for file in path.glob("*") if file.is_file())


def secret_refusals(
    queries: Mapping[str, Mapping[str, Any]],
    inventory_dir: str,
    folder: str,
    generated: list[str],
    secret_environment: Mapping[str, Any],
    rotating: bool = False,
) -> list[str]:
    """Return messages about secrets that hosts reject, with remedies.

    `queries` are the results of module `secret_digests` by host, `generated` the files with secrets
    that this run has generated. At the end of an interrupted rotation, some previous values may
    already be `refused`.
    """
    values = {text.split()[0] for path in generated if (text := Path(path).read_text()).strip()}
    fresh = {name for name, value in secret_environment.items() if str(value) in values}
    found: dict[str, dict[str, list[str]]] = {}
    for host, query in queries.items():
        for name, problem in query.get("problems", {}).items():
            kind = "other" if problem == "changed" and name in fresh else problem
            found.setdefault(kind, {}).setdefault(name, []).append(host)
        if query.get("unreachable") and generated:
            found.setdefault("unreachable", {}).setdefault("", []).append(host)
        elif query.get("failed"):
            found.setdefault("failed", {}).setdefault(str(query.get("msg", "")), []).append(host)
    return [
        _reason(kind, found[kind], inventory_dir, folder, generated)
        for kind in found
        if kind not in ("changed", "refused" if rotating else "")
    ]


def _reason(
    kind: str, named: Mapping[str, list[str]], inventory_dir: str, folder: str, generated: list[str]
) -> str:
    hosts = ", ".join(dict.fromkeys(host for names in named.values() for host in names))
    names = ", ".join(sorted(named))
    before = ", ".join(f"{name}_previous" for name in sorted(named))
    copy = (
        "Take them from where the site was set up (a colleague's checkout, your backup):"
        f" rsync --archive THERE:{folder}/ {folder}/; secrets of a vault are in"
        f" {inventory_dir}/group_vars/all: pull its newest version"
    )
    again = "docs/secrets.md explains more"
    if kind == "unreachable":
        return (
            f"{hosts} did not answer, so it is unknown whether the site has other secrets than"
            f" those that were just generated in {folder}; they are removed again. {copy}. {again}"
        )
    if kind == "failed":
        return f"{hosts} could not compare the secrets: {names}"
    if kind == "old":
        return (
            f"{names}: a rotation has replaced this secret on {hosts}, so {folder} is an old copy."
            f" Nothing was changed. {copy}. {again}"
        )
    if kind == "previous":
        return (
            f"{before}: missing, while {hosts} also accept the former secret: a rotation has not"
            f" come to its end, or sessions are signed with the former key. Copy {folder} as a"
            " whole, with the files *.previous.txt and rotation.json, and let"
            " playbooks/rotate_secrets.yml end the rotation there. To have the former refused now:"
            f" site.yml -e new_secrets=true. {again}"
        )
    if kind == "refused":
        return (
            f"{before}: revoked on {hosts} by a rotation, and would be accepted again. Remove"
            f" {folder}/<name>.previous.txt and rotation.json there, or the variable from"
            f" {inventory_dir}/group_vars/all. {again}"
        )
    made = " Those that this run has generated are removed again." if generated else ""
    return (
        f"{hosts}: set up with other secrets than {inventory_dir} has: {names}. Nothing was"
        f" changed.{made} {copy}. To give the site new ones without losing a request:"
        " playbooks/rotate_secrets.yml from there. To have these instead, at once (sessions end; a"
        " server that was restored from a backup from before a rotation needs it, too): site.yml"
        f" -e new_secrets=true. {again}"
    )


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "files_in": files_in,
            "rotation_plan": rotation_plan,
            "secret_digest": secret_digest,
            "secret_refusals": secret_refusals,
            "secrets_of": secrets_of,
            "unread_previous": unread_previous,
        }
