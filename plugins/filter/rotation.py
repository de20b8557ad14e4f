"""Plan the rotation of secrets, select the secrets of a host, and explain rejected ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.utils.display import Display

Values = Mapping[str, str]
Groups = Mapping[str, list[str]]

# Secrets of the stack: the name (of the file, and for -e rotate_secrets), the variable, and the
# group of the hosts that use it.
STACK = {
    "database": ("app_database_password", "database"),
    "migration": ("app_migration_password", "database"),
    "cache": ("app_cache_password", "cache"),
    "queue": ("app_queue_password", "queue"),
    "secret_key": ("app_secret_key", "app"),
}
# Secrets that lose their previous values at the end of a rotation. Other previous values stay valid
# until the next rotation, because visitors or external programs still use them.
SERVERS = ("database", "migration", "cache", "queue")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""


def _digests(values: Values, name: str) -> tuple[str, str]:
    """Return the digests of a secret's present and previous values in the inventory."""
    variable, _ = STACK[name]
    return _digest(values.get(variable) or ""), _digest(values.get(f"{variable}_previous") or "")


def rotation_plan(
    values: Values,
    files: Mapping[str, Any],
    groups: Groups,
    requested: str,
    folder: str,
    revoke: bool = False,
) -> dict[str, list[str]]:
    """Return the plan of a rotation or, with `revoke`, of revoking previous values only.

    `values` are the variables of STACK and their previous values. `files` is the result of module
    `secret_files`. `requested` has names, separated by commas; empty means all secrets that can be
    rotated.

    In the plan, `generated` secrets get a new value in their file. `external` secrets have both
    values in the inventory. `names` is the union. `deferred` names are requested, but an
    interrupted rotation of other secrets is completed first. The previous values of `revoked`
    secrets are rejected at the end.
    """
    requested_names = [name for name in re.split(r"[,\s]+", requested) if name]
    running = list(files["in_progress"])
    if revoke:
        problem = "Run this without -e secrets_revoke_previous=true first"
        if running:
            problem = f"a rotation of {', '.join(running)} was interrupted. {problem}"
        elif requested_names:
            problem = f"rotate_secrets names secrets to rotate. {problem}"
        problems = [f"Nothing is revoked: {problem}"] if running or requested_names else []
        return _plan(revoked=dict.fromkeys([*STACK, *files["previous"]]), problems=problems)
    generated, external = [], []
    for name, (_, group) in STACK.items():
        present, previous = _digests(values, name)
        if groups.get(group) and present:
            if present == files["present"].get(name):
                generated.append(name)
            elif previous not in ("", present):
                external.append(name)
    if running:
        deferred = sorted({*requested_names} - {*running, *external})
        return _plan(running, external, deferred)
    if not requested_names:
        problem = (
            f"Nothing is rotated: {folder} has no secret of the stack, and the inventory has no"
            " previous value such as app_secret_key_previous. See docs/secrets.md for secrets in a"
            " vault"
        )
        return _plan(generated, external, problems=[] if generated or external else [problem])
    generated += [name for name in files["present"] if name not in STACK]
    return _plan(
        [name for name in requested_names if name in generated],
        [name for name in requested_names if name in external],
        problems=[
            _problem(name, values, files, groups, folder)
            for name in requested_names
            if name not in {*generated, *external}
        ],
    )


def _plan(
    generated: Iterable[str] = (),
    external: Iterable[str] = (),
    deferred: Iterable[str] = (),
    *,
    revoked: Iterable[str] = (),
    problems: Iterable[str] = (),
) -> dict[str, list[str]]:
    names = [*generated, *external]
    return {
        "generated": [*generated],
        "external": [*external],
        "names": names,
        "deferred": [*deferred],
        "revoked": [*revoked] or [name for name in names if name in SERVERS],
        "problems": [*problems],
    }


def _problem(
    name: str, values: Values, files: Mapping[str, Any], groups: Groups, folder: str
) -> str:
    if name not in STACK:
        names = ", ".join(dict.fromkeys([*STACK, *files["present"]]))
        return f"{name} is not a secret of this inventory, which has {names} (see {folder})"
    variable, group = STACK[name]
    if not values.get(variable):
        return f"{name} cannot be rotated: {variable} is not set"
    if not groups.get(group):
        return (
            f"{name} cannot be rotated: group {group} has no hosts. Change the secret on its"
            f" server, set {variable}, then run site.yml"
        )
    return (
        f"{name} has no generated value, since {variable} does not read {folder}/{name}.txt. In the"
        f" inventory, or its vault, set {variable} to a new value and {variable}_previous to the"
        " present one, then run this again. See docs/secrets.md for the commands"
    )


def unread_previous(
    plan: Mapping[str, list[str]], values: Values, files: Mapping[str, Any], folder: str
) -> list[str]:
    """Return messages about variables that do not read the files of previous values."""
    return [
        f"{STACK[name][0]}_previous: does not read {folder}/{name}.previous.txt, so the previous"
        f" secret would be revoked at once. Set it next to {STACK[name][0]}, to:"
        f" \"{{{{ lookup('ansible.builtin.file', '{folder}/{name}.previous.txt', errors='ignore')"
        " | default('', true) }}\""
        for name in plan["generated"]
        if name in STACK and _digests(values, name)[1] != files["previous"].get(name)
    ]


def rotation_report(plan: Mapping[str, list[str]], values: Values) -> list[str]:
    """Return what a rotation did, and what is left to do in the inventory."""
    if not plan["names"]:
        kept = values.get("app_secret_key_previous")
        report = ["Sessions that the previous session key signed have ended."]
        return report + ["Remove app_secret_key_previous from the inventory."] * bool(kept)
    report = [f"New: {', '.join(plan['names'])}. The servers reject the previous values."]
    if "secret_key" in plan["names"]:
        report.append(
            "Sessions that the previous key signed stay valid until the next rotation, or -e"
            " secrets_revoke_previous=true."
        )
    report += [
        f"Remove {STACK[name][0]}_previous from the inventory: until then other runs are rejected."
        for name in plan["external"]
        if name in SERVERS
    ]
    if plan["deferred"]:
        names = ", ".join(plan["deferred"])
        report.append(
            f"This completed an interrupted rotation. Run the playbook again for {names}."
        )
    return report


def secrets_of(
    values: Values,
    secret_environment: Mapping[str, Any],
    groups: Groups,
    host: str,
    revoked: Iterable[str] = (),
) -> dict[str, dict[str, Any]]:
    """Return the secrets of a host in the form of module `secret_digests`.

    App hosts have all secrets and those of the environment. Other hosts have the secrets of their
    groups. Passwords of servers outside the inventory may change freely.
    """
    is_app = host in groups.get("app", [])
    found = {
        variable: {
            "value": str(values.get(variable) or ""),
            "previous": str(values.get(f"{variable}_previous") or ""),
            "strict": bool(groups.get(group)),
            "revoked": name in revoked,
        }
        for name, (variable, group) in STACK.items()
        if is_app or host in groups.get(group, [])
    }
    for name, value in secret_environment.items() if is_app else []:
        found[name] = {"value": str(value), "previous": "", "strict": False, "revoked": False}
    return found


def files_in(folder: str) -> list[str]:
    """Return the files of a directory of secrets. Warn if others can read it."""
    path = Path(folder)
    if path.is_dir() and path.stat().st_mode & 0o077:
        Display().warning(
            f"Every user of this machine can read {folder}: chmod -R go= {folder}. Drives of"
            " Windows in WSL ignore modes: keep the checkout in your Linux home directory"
        )
    return sorted(str(file) for file in path.glob("*") if file.is_file())


def hosts_to_query(hostvars: Mapping[str, Any], groups: Groups, hosts: list[str]) -> list[str]:
    """Return the hosts outside of this run to query; empty unless a host of this run is new."""
    queries = [hostvars[host].get("__secrets_query") or {} for host in hosts]
    if all(query.get("known", True) for query in queries):
        return []
    names = {host for _, group in STACK.values() for host in groups.get(group, [])}
    return sorted(names - {*hosts})


def secret_problems(
    hostvars: Mapping[str, Any],
    hosts: list[str],
    others: list[Mapping[str, Any]],
    inventory_dir: str,
    folder: str,
    generated: list[str],
    secret_environment: Mapping[str, Any],
    rotating: bool = False,
) -> list[str]:
    """Return messages about secrets that hosts reject.

    The results of module `secret_digests` are in the variables of `hosts` and, for hosts outside of
    this run, in `others`. `generated` are the files of secrets that this run has generated. At the
    end of an interrupted rotation, some previous values may already be `revoked`.
    """
    queries = {host: hostvars[host].get("__secrets_query") or {} for host in hosts}
    queries |= {query["item"]: query for query in others}
    fresh = {text.split()[0] for path in generated if (text := Path(path).read_text()).strip()}
    found: dict[str, dict[str, list[str]]] = {}
    for host, query in queries.items():
        for name, problem in query.get("problems", {}).items():
            if problem == "changed" and str(secret_environment.get(name)) in fresh:
                problem = "other"
            if problem != "changed" and not (rotating and problem == "revoked"):
                found.setdefault(problem, {}).setdefault(name, []).append(host)
        if query.get("unreachable") and generated:
            found.setdefault("unreachable", {}).setdefault("", []).append(host)
        elif query.get("failed"):
            found.setdefault("failed", {}).setdefault(str(query.get("msg", "")), []).append(host)
    return [
        _message(kind, names, inventory_dir, folder, bool(generated))
        for kind, names in found.items()
    ]


def _message(
    kind: str, found: Mapping[str, list[str]], inventory_dir: str, folder: str, generated: bool
) -> str:
    hosts = ", ".join(dict.fromkeys(host for names in found.values() for host in names))
    names = ", ".join(sorted(found))
    previous = ", ".join(f"{name}_previous" for name in sorted(found))
    copy = (
        "Copy the secrets from the checkout that set up the site, or from a backup: rsync --archive"
        f" THERE:{folder}/ {folder}/; if a vault in {inventory_dir}/group_vars/all has them, pull"
        " its latest version"
    )
    removed = " The secrets that this run has generated are removed." if generated else ""
    return {
        "unreachable": f"{hosts} did not answer, and may have other secrets than those that were"
        f" just generated in {folder}.{removed} {copy}",
        "failed": f"{hosts} could not compare the secrets: {names}",
        "old": f"{names}: a rotation has replaced this secret on {hosts}, so {folder} is outdated."
        f" Nothing was changed. {copy}",
        "previous": f"{previous}: missing, while {hosts} also accept the previous secret, because a"
        f" rotation is incomplete or sessions use the previous key. Copy {folder} as a whole, with"
        " *.previous.txt and rotation.json, or complete the rotation with"
        " playbooks/rotate_secrets.yml there. To revoke the previous secret now: site.yml -e"
        " new_secrets=true",
        "revoked": f"{previous}: revoked on {hosts} by a rotation, and would be accepted again."
        f" Remove {folder}/<name>.previous.txt and rotation.json, or the variable from"
        f" {inventory_dir}/group_vars/all",
        "other": f"{hosts}: set up with other secrets than {inventory_dir} has: {names}. Nothing"
        f" was changed.{removed} {copy}. For new secrets without failed requests, run"
        " playbooks/rotate_secrets.yml there. To replace the secrets at once, which ends all"
        " sessions (also for a server restored from a backup made before a rotation): site.yml -e"
        " new_secrets=true",
    }[kind] + ". See docs/secrets.md"


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "files_in": files_in,
            "hosts_to_query": hosts_to_query,
            "rotation_plan": rotation_plan,
            "rotation_report": rotation_report,
            "secret_problems": secret_problems,
            "secrets_of": secrets_of,
            "unread_previous": unread_previous,
        }
