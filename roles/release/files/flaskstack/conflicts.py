"""Find files, accounts and units of others that conflict with an app's names."""

from __future__ import annotations

import grp
import os
import pwd
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flaskstack.errors import ValidationError
from flaskstack.files import listing
from flaskstack.folders import give
from flaskstack.mysql import find_tools

ROOT = Path("/")
# Where systemd finds units, except /etc/systemd/system, which holds the app's units.
UNITS = ("run/systemd/system", "run/systemd/generator", "usr/local/lib/systemd/system")
UNITS += ("usr/lib/systemd/system", "lib/systemd/system")
OWN_UNITS = (".target", ".slice", ".network.service", ".recover.service", ".build.service")
OWN_UNITS += ("-processes.slice", "-timers.slice", "-commands.slice")
OWN_UNITS += tuple(
    f"-web@{slot}.{kind}" for slot in ("", "a", "b") for kind in ("service", "socket")
)
SETTINGS = ("etc", "run", "usr/lib")  # parents of tmpfiles.d and sysusers.d
SOCKET = "run/mysqld/mysqld.sock"
MARK = "Ansible managed"
# Entries of an app's folder. It may have been restored from a backup before site.yml runs.
PARTS = {"current", "environments", "instances", "previous", "releases", "shared", "lost+found"}
NAME, USER = "app_name", "app_user"
OTHER = "Choose another"

Problem = tuple[str, str, str]  # variable, its value, reason


def find(params: dict[str, Any]) -> dict[str, Any]:
    """Check for conflicts with the system and with other apps.

    Keys: app, user, root, groups (of the host), folders (absolute paths that the app may write
    to), units (names), settings (the inventory's variables file); for the site also domains and
    listen, for the database also database and accounts.
    Raises ValidationError with all conflicts.
    """
    host = Host(params)
    found = list(host.problems())
    if not found:
        return {"changed": False}
    lines = [f"{name} is {value}: {reason}" for name, value, reason in found]
    raise ValidationError(
        "\n".join([*lines, f"Nothing was changed. {params['settings']} sets these"])
    )


class Host:
    """The names on a host that an app uses or would use."""

    def __init__(self, params: dict[str, Any]) -> None:
        """Take the parameters of `find`."""
        self.params, self.app, self.user = params, params["app"], params["user"]
        self.groups = set(params["groups"])
        self.processes = {re.sub(r"@[^.]*", "@", name) for name in params["units"]}
        self.processes |= {name.replace(".timer", ".service") for name in self.processes}
        self.own = self.folders_of(ROOT / f"etc/tmpfiles.d/{self.app}.conf")

    def problems(self) -> Iterator[Problem]:
        """Yield conflicts of every kind."""
        if "app" in self.groups:
            yield from self.account(USER, self.user, f"App {self.app}")
            yield from self.account(NAME, f"{self.app}-build", f"Builds of {self.app}")
            yield from self.units()
            yield from self.folders()
        if self.groups & {"cache", "queue"}:
            yield from self.account(NAME, f"{self.app}-redis", f"Redis of {self.app}")
        if "edge" in self.groups:
            yield from self.site()
        if "database" in self.groups:
            yield from self.databases()
        yield from self.files()

    # Accounts: those created by the roles are identified by their comment.

    def account(self, variable: str, name: str, comment: str) -> Iterator[Problem]:
        """Yield a conflict if a user or its group is not the app's."""
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            why = f"the group {name} exists already" if has(grp.getgrnam, name) else ""
            if name in self.system_users():
                why = f"a package of the system makes a user {name}"
            if why:
                yield variable, name, f"{why} and is not the app's. {OTHER}"
            return
        said = user.pw_gecos.rstrip(",")
        if said != comment or user.pw_uid == 0:
            about = f" (its comment is {said!r})" if said else ""
            yield (
                variable,
                name,
                f"the user {name} exists already{about} and is not this app's. {OTHER}; if it "
                f"was made for this app alone, say so: sudo usermod --comment '{comment}' {name}",
            )

    def system_users(self) -> set[str]:
        """Return the users and groups that packages declare in sysusers.d."""
        texts = [
            path.read_text(errors="replace")
            for place in SETTINGS
            for path in listing(ROOT / place / "sysusers.d")
            if path.suffix == ".conf" and path.is_file()
        ]
        return set(re.findall(r"(?m)^\s*[ug]!?\s+([A-Za-z0-9_.-]+)", "\n".join(texts)))

    # Files: those of the roles have a mark and the app's name in them.

    def files(self) -> Iterator[Problem]:
        """Yield files of others at paths where roles write the app's."""
        places = [f"{place}/tmpfiles.d/{self.app}.conf" for place in SETTINGS]
        places += [f"etc/nginx/sites-enabled/{self.app}.conf"]
        places += [f"etc/fail2ban/jail.d/{self.app}.conf"]
        places += [f"etc/redis/redis-{self.app}-{kind}.conf" for kind in ("cache", "queue")]
        for place in places:
            yield from self.file(ROOT / place)

    def file(self, path: Path) -> Iterator[Problem]:
        """Yield a file that exists and is not the app's."""
        if os.path.lexists(path) and not (path.is_relative_to(ROOT / "etc") and self.made(path)):
            yield NAME, self.app, f"{path} exists already and is not this app's. {OTHER}"

    def made(self, path: Path) -> bool:
        """Return whether a role wrote the file for this app."""
        if path.is_symlink() or not path.is_file():
            return False
        text = path.read_text(errors="replace")
        return MARK in text and bool(re.search(rf"(?<![\w-]){self.app}(?!\w)", text))

    def units(self) -> Iterator[Problem]:
        """Yield units that conflict with the app's units, in either direction."""
        names = {f"{self.app}{kind}" for kind in OWN_UNITS}
        names |= self.processes
        for name in sorted(names):
            for place in UNITS:
                if os.path.lexists(ROOT / place / name):
                    yield NAME, self.app, f"{name} is a unit of the system's. {OTHER}"
                    break
            else:
                yield from self.unit(name)

    def unit(self, name: str) -> Iterator[Problem]:
        """Yield a unit in /etc/systemd/system that is not the app's."""
        path = ROOT / "etc/systemd/system" / name
        if name not in self.processes:
            yield from self.file(path)
        elif os.path.lexists(path):
            ours = rf"(?m)^(Slice={self.app}(-[a-z]+)?\.slice|PartOf={self.app}\.target)$"
            if path.is_symlink() or not re.search(ours, path.read_text(errors="replace")):
                process = name.removeprefix(f"{self.app}-").rpartition(".")[0].rstrip("@")
                yield "app_processes", process, f"{path} exists and is not this app's. {OTHER}"

    # Folders: the app's are in its tmpfiles.d and owned by the app or root.

    def folders(self) -> Iterator[Problem]:
        """Yield folders of others, and folders shared with another app."""
        root = Path(self.params["root"])
        for path, variable in (
            (root, "app_root"),
            (Path("/etc", self.app), NAME),
            (Path("/var/lib", self.app), NAME),
        ):
            if self.foreign(ROOT / path.relative_to("/"), path):
                yield (
                    variable,
                    str(path) if variable == "app_root" else self.app,
                    f"{path} exists already, is not empty and is not this app's. {OTHER}, or "
                    f"move it away: sudo mv {path} {path}.old",
                )
        for app, theirs in self.other_apps():
            for path, variable in self.places():
                if any(
                    path.is_relative_to(other) or other.is_relative_to(path) for other in theirs
                ):
                    yield variable, str(path), f"it is a folder of {app}'s, or holds one. {OTHER}"
        account = self.own_account()
        for folder in self.params["folders"]:
            try:
                give(folder, account, check=True, own=Path(folder).is_relative_to(root))
            except ValidationError as error:
                yield "app_writable_paths", folder, str(error).replace(" Nothing was changed.", "")

    def places(self) -> list[tuple[Path, str]]:
        """Return the folders of this app, with the variable that names each."""
        writable = [(Path(path), "app_writable_paths") for path in self.params["folders"]]
        return [(Path(self.params["root"]), "app_root"), *writable]

    def foreign(self, path: Path, name: Path) -> bool:
        """Return whether a folder holds files that are not this app's."""
        if not os.path.lexists(path) or name in self.own:
            return False
        if not path.is_dir():
            return True
        parts = PARTS if str(name) == self.params["root"] else {"lost+found"}
        if {part.name for part in path.iterdir()} <= parts:
            return False
        found, account = path.stat(), self.own_account()
        if account.pw_gecos.rstrip(",") == f"App {self.app}":  # tmpfiles.d was cleaned up
            return found.st_gid != account.pw_gid and not (path / "releases").is_dir()
        return found.st_uid != account.pw_uid

    def own_account(self) -> pwd.struct_passwd:
        """Return the app's account; before it exists, a placeholder that owns nothing."""
        try:
            return pwd.getpwnam(self.user)
        except KeyError:
            return pwd.struct_passwd((self.user, "x", -1, -1, "", "/", ""))

    def other_apps(self) -> Iterator[tuple[str, list[Path]]]:
        """Yield the other apps of the host, with their folders."""
        for path in listing(ROOT / "etc/tmpfiles.d"):
            if path.suffix == ".conf" and path.stem != self.app:
                folders = self.folders_of(path)
                if Path("/etc", path.stem) in folders:
                    yield path.stem, folders

    @staticmethod
    def folders_of(path: Path) -> list[Path]:
        """Return the folders that a file of tmpfiles.d creates."""
        text = path.read_text(errors="replace") if path.is_file() else ""
        return [Path(name) for name in re.findall(r'(?m)^d "?(/[^"\s]+)', text)]

    # Sites and databases.

    def site(self) -> Iterator[Problem]:
        """Yield domains that another site already serves on the same addresses."""
        for kind in ("certificate.service", "certificate.timer"):
            yield from self.unit(f"{self.app}-{kind}")
        names, listen = set(self.params["domains"]), set(self.params["listen"])
        for path in sorted(listing(ROOT / "etc/nginx/sites-enabled")):
            if path.name != f"{self.app}.conf" and path.is_file():
                text = path.read_text(errors="replace")
                theirs = set(" ".join(re.findall(r"(?m)^\s*server_name\s+([^;]*);", text)).split())
                at = set(re.findall(r"(?m)^\s*listen\s+([^\s;]+)", text))
                if (both := names & theirs) and listen & at:
                    yield (
                        "app_domains",
                        ", ".join(sorted(both)),
                        f"{path} answers to it already. Take it from that site first",
                    )

    def databases(self) -> Iterator[Problem]:
        """Yield databases and accounts that existed before role mysql ran."""
        facts = listing(ROOT / "etc/ansible/facts.d")
        known = {path.name: path for path in facts if path.match("flaskstack_mysql_*.fact")}
        older = self.own_account().pw_gecos == f"App {self.app}"  # than these facts
        if f"flaskstack_mysql_{self.app}.fact" in known or older:
            return
        others = "".join(path.read_text() for path in known.values())  # facts of role mysql
        kinds = (
            ("app_database_name", "database", "SHOW DATABASES", [self.params["database"]]),
            (
                "app_database_user",
                "account",
                "SELECT DISTINCT user FROM mysql.user",
                self.params["accounts"],
            ),
        )
        for variable, kind, statement, names in kinds:
            there = ask_server(statement) & set(names)
            for name in sorted(name for name in there if f'"{name}"' not in others):
                yield (
                    variable,
                    name,
                    f"the server has a {kind} of that name already, which is not this app's. "
                    f"{OTHER}; if it is this app's, dump it, drop it, and load it after site.yml",
                )


def has(find: Callable[[str], object], name: str) -> bool:
    """Return whether an account or a group exists."""
    try:
        find(name)
    except KeyError:
        return False
    return True


def ask_server(statement: str) -> set[str]:
    """Query the local database server as root; return the words of its output."""
    client, _ = find_tools()
    if not client or not (ROOT / SOCKET).exists():
        return set()
    command = [client, "--no-defaults", f"--socket={ROOT / SOCKET}", "--user=root"]
    command += ["--batch", "--skip-column-names", f"--execute={statement}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(done.stdout.split())
