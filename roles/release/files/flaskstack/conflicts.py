"""Find files, accounts and units of others that conflict with an app's names."""

from __future__ import annotations

import grp
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaskstack.errors import ValidationError
from flaskstack.files import listing
from flaskstack.folders import give
from flaskstack.mysql import find_tools

ROOT = Path("/")
# Where systemd finds units, except /etc/systemd/system, which holds the app's units.
SYSTEM_UNITS = ("run/systemd/system", "run/systemd/generator", "usr/local/lib/systemd/system")
SYSTEM_UNITS += ("usr/lib/systemd/system", "lib/systemd/system")
UNITS = [".target", ".slice", ".network.service", ".recover.service", ".build.service"]
UNITS += ["-processes.slice", "-timers.slice", "-commands.slice"]
UNITS += [f"-web@{slot}.{kind}" for slot in ("", "a", "b") for kind in ("service", "socket")]
FILES = ["etc/tmpfiles.d/{}.conf", "run/tmpfiles.d/{}.conf", "usr/lib/tmpfiles.d/{}.conf"]
FILES += ["etc/nginx/sites-enabled/{}.conf", "etc/fail2ban/jail.d/{}.conf"]
FILES += ["etc/redis/redis-{}-cache.conf", "etc/redis/redis-{}-queue.conf"]
SOCKET = "run/mysqld/mysqld.sock"
# Entries of an app's folder. It may have been restored from a backup before site.yml runs.
PARTS = {"current", "environments", "instances", "previous", "releases", "shared", "lost+found"}

Problem = tuple[str, str, str]  # variable, its value, reason


def find(params: dict[str, Any]) -> dict[str, Any]:
    """Check for conflicts with the system and with other apps.

    Keys: app, user, root, groups (of the host), folders (absolute paths that the app may write
    to), units (names), settings (the inventory's variables file); for the site also domains and
    listen, for the database also database and accounts.
    Raises ValidationError with all conflicts.
    """
    lines = [
        f"{name} is {value}: {reason}. Choose another" for name, value, reason in problems(params)
    ]
    if lines:
        lines.append(f"Nothing was changed. {params['settings']} sets these")
        raise ValidationError("\n".join(lines))
    return {"changed": False}


def problems(params: dict[str, Any]) -> Iterator[Problem]:
    """Yield conflicts of every kind."""
    app, groups = params["app"], set(params["groups"])
    if "app" in groups:
        yield from account("app_user", params["user"], f"App {app}")
        yield from account("app_name", f"{app}-build", f"Builds of {app}")
        yield from units(app, params["units"])
        yield from folders(params)
    if groups & {"cache", "queue"}:
        yield from account("app_name", f"{app}-redis", f"Redis of {app}")
    if "edge" in groups:
        yield from file(app, ROOT / f"etc/systemd/system/{app}-certificate.service")
        yield from file(app, ROOT / f"etc/systemd/system/{app}-certificate.timer")
        yield from domains(params)
    if "database" in groups:
        yield from databases(params)
    for path in FILES:
        yield from file(app, ROOT / path.format(app))


def own_account(name: str) -> pwd.struct_passwd:
    """Return an account, or a placeholder with invalid ids if it does not exist yet."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return pwd.struct_passwd((name, "x", -1, -1, "", "/", ""))


def account(variable: str, name: str, comment: str) -> Iterator[Problem]:
    """Yield a conflict if a user or its group is not the app's. `comment` identifies the app."""
    user = own_account(name)
    if user.pw_uid == -1:
        if name in {group.gr_name for group in grp.getgrall()}:
            yield variable, name, f"the group {name} exists already and is not the app's"
    elif user.pw_gecos.rstrip(",") != comment or user.pw_uid == 0:
        yield (
            variable,
            name,
            f"the user {name} exists already and is not this app's (its comment is "
            f"{user.pw_gecos!r}). If it is: sudo usermod --comment '{comment}' {name}",
        )


def file(app: str, path: Path) -> Iterator[Problem]:
    """Yield an existing file, unless a role wrote it for this app."""
    if os.path.lexists(path):
        text = path.read_text(errors="replace") if path.is_file() else ""
        own = "Ansible managed" in text and re.search(rf"(?<![\w-]){app}(?!\w)", text)
        if not own or path.is_symlink() or not path.is_relative_to(ROOT / "etc"):
            yield "app_name", app, f"{path} exists already and is not this app's"


def units(app: str, names: list[str]) -> Iterator[Problem]:
    """Yield units of the system or of others that have the names of the app's units."""
    processes = {re.sub(r"@[^.]*", "@", name) for name in names}
    processes |= {name.replace(".timer", ".service") for name in processes}
    own = re.compile(rf"(?m)^(Slice={app}(-[a-z]+)?\.slice|PartOf={app}\.target)$")
    for name in sorted({*processes, *(f"{app}{kind}" for kind in UNITS)}):
        path = ROOT / "etc/systemd/system" / name
        if any(os.path.lexists(ROOT / place / name) for place in SYSTEM_UNITS):
            yield "app_name", app, f"{name} is a unit of the system"
        elif name not in processes:
            yield from file(app, path)
        elif path.is_symlink() or (path.exists() and not own.search(path.read_text())):
            process = name.removeprefix(f"{app}-").rpartition(".")[0].rstrip("@")
            yield "app_processes", process, f"{path} exists already and is not this app's"


def folders(params: dict[str, Any]) -> Iterator[Problem]:
    """Yield folders that belong to others or overlap with folders of another app."""
    app, root, user = params["app"], Path(params["root"]), own_account(params["user"])
    own = tmpfiles(ROOT / f"etc/tmpfiles.d/{app}.conf")
    state = [("app_name", app, Path("/etc", app)), ("app_name", app, Path("/var/lib", app))]
    for variable, value, path in [("app_root", str(root), root), *state]:
        parts = PARTS if path == root else {"lost+found"}
        if path not in own and is_foreign(ROOT / path.relative_to("/"), app, user, parts):
            yield (
                variable,
                value,
                f"{path} exists already, is not empty and is not this app's. To move it away: "
                f"sudo mv {path} {path}.old",
            )
    writable = [Path(path) for path in params["folders"]]
    for config in sorted(listing(ROOT / "etc/tmpfiles.d")):
        theirs = tmpfiles(config)
        if config.stem == app or Path("/etc", config.stem) not in theirs:  # not another app's
            continue
        for path in [root, *writable]:
            if any(path.is_relative_to(one) or one.is_relative_to(path) for one in theirs):
                variable = "app_root" if path == root else "app_writable_paths"
                yield variable, str(path), f"it is a folder of {config.stem}'s, or holds one"
    for path in writable:
        try:
            give(str(path), user, check=True, inside=path.is_relative_to(root))
        except ValidationError as error:
            yield "app_writable_paths", str(path), str(error).partition(" Nothing was")[0]


def tmpfiles(path: Path) -> list[Path]:
    """Return the folders that a file of tmpfiles.d creates."""
    text = path.read_text(errors="replace") if path.is_file() else ""
    return [Path(name) for name in re.findall(r'(?m)^d "?(/[^"\s]+)', text)]


def is_foreign(path: Path, app: str, user: pwd.struct_passwd, parts: set[str]) -> bool:
    """Return whether a folder holds files that are not this app's."""
    if not path.is_dir():
        return os.path.lexists(path)
    if {entry.name for entry in path.iterdir()} <= parts:
        return False
    if user.pw_gecos.rstrip(",") == f"App {app}":  # installed, but its tmpfiles.d file is missing
        return path.stat().st_gid != user.pw_gid and not (path / "releases").is_dir()
    return path.stat().st_uid != user.pw_uid


def domains(params: dict[str, Any]) -> Iterator[Problem]:
    """Yield domains that another site already serves on the same addresses."""
    for path in sorted(listing(ROOT / "etc/nginx/sites-enabled")):
        if path.name != f"{params['app']}.conf" and path.is_file():
            text = path.read_text(errors="replace")
            names = " ".join(re.findall(r"(?m)^\s*server_name\s+([^;]*);", text)).split()
            both = sorted(set(names) & set(params["domains"]))
            if both and set(re.findall(r"(?m)^\s*listen\s+([^\s;]+)", text)) & set(
                params["listen"]
            ):
                yield "app_domains", ", ".join(both), f"{path} answers to it already"


def databases(params: dict[str, Any]) -> Iterator[Problem]:
    """Yield databases and accounts that existed before role mysql ran."""
    app, user = params["app"], own_account(params["user"])
    facts = listing(ROOT / "etc/ansible/facts.d")
    known = {path.name: path for path in facts if path.match("flaskstack_mysql_*.fact")}
    older = user.pw_gecos == f"App {app}"  # the app was installed before its facts were written
    if f"flaskstack_mysql_{app}.fact" in known or older:
        return
    others = "".join(path.read_text() for path in known.values())  # facts of role mysql
    for variable, kind, statement, names in (
        ("app_database_name", "database", "SHOW DATABASES", [params["database"]]),
        (
            "app_database_user",
            "account",
            "SELECT DISTINCT user FROM mysql.user",
            params["accounts"],
        ),
    ):
        for name in sorted(ask_server(statement) & set(names)):
            if f'"{name}"' not in others:
                yield (
                    variable,
                    name,
                    f"the server has a {kind} of that name already, which is not this app's. If "
                    "it is, dump it, drop it, and load it after site.yml",
                )


def ask_server(statement: str) -> set[str]:
    """Query the local database server as root; return the words of its output."""
    client, _ = find_tools()
    if not client or not (ROOT / SOCKET).exists():
        return set()
    command = [client, "--no-defaults", f"--socket={ROOT / SOCKET}", "--user=root"]
    command += ["--batch", "--skip-column-names", f"--execute={statement}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(result.stdout.split())
