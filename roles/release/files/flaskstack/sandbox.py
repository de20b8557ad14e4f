"""Run untrusted code as the build account, isolated from the rest of the host.

It sees system programs and settings, a folder under its final path, and its cache. It can reach
only named addresses. The result is then owned by root.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flaskstack import files
from flaskstack.errors import DeployError, ValidationError, last_lines
from flaskstack.hardening import BUILDS, SHARED_MEMORY
from flaskstack.hints import advice, decisive

MEMORY = Path("/run")  # a tmpfs
CACHE = Path("/var/cache")
FILES = "/run/build"  # path of the input files in the sandbox
PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
AZURE = ipaddress.ip_address("168.63.129.16")  # Azure's metadata service, at a public address
PROPERTIES = BUILDS | {
    "CacheDirectoryMode": "0700",
    "MemoryMax": "60%",
    "OOMScoreAdjust": "900",  # the kernel kills the build first
    "KillSignal": "SIGKILL",  # no process outlives the command
    "UMask": "0022",
}
SYSTEM = "/usr /etc /opt -/bin -/sbin -/lib -/lib32 -/lib64"
# Data of other apps and of this app in /etc is also protected by its mode.
HIDDEN = "-/etc/{app} -/etc/ansible -/etc/flaskstack -/etc/nginx -/etc/redis -/etc/ssh"
TABLE = """table inet {table} {{}}
delete table inet {table}
table inet {table} {{
  chain output {{
    type filter hook output priority filter; policy accept
    meta skuid {uid} goto build
  }}
  chain build {{
{rules}    reject with icmpx type admin-prohibited
  }}
}}
"""


@dataclass
class Sandbox:
    """An open sandbox: its tree, and a method to run commands in it."""

    app: str
    tree: Path  # accessible only to root and the commands
    final: Path  # path of the tree inside the sandbox
    properties: list[str]

    def run(
        self, step: str, script: str, advise: Callable[[str], str] = advice, **streams: Any
    ) -> str:
        """Run a shell script in the tree; return its output.

        `streams` are stdin and stdout as for subprocess. Raises ValidationError with the decisive
        lines of the output and the advice of `advise`.
        """
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | streams
        piped = settings["stdout"] == subprocess.PIPE
        settings["stderr"] = subprocess.STDOUT if piped else subprocess.PIPE
        flags = ["--quiet", "--pipe", "--wait", "--collect", f"--unit={unit(self.app)}"]
        flags += [f"--property={line}" for line in self.properties]
        command = ["systemd-run", *flags, "/bin/sh", "-e", "-c", script.replace("$", "$$")]
        done = execute(command, **settings)
        output = (done.stdout if piped else done.stderr) or ""
        if done.returncode:
            said = decisive(output.splitlines()) or [
                f"journalctl --unit={unit(self.app)} shows why"
            ]
            reason = [f"{step} failed with code {done.returncode}:", *said, advise(output)]
            raise ValidationError("\n".join(filter(None, reason)))
        return output

    def keep(self, final: Path | None = None) -> None:
        """Give the tree to root, flush it to disk and rename it to its final name.

        No process can change it in between: systemd kills the whole cgroup of a command before the
        command counts as ended.
        """
        final = final or self.final
        for parent, folders, others in os.walk(self.tree):
            for path in [parent, *(os.path.join(parent, name) for name in folders + others)]:
                mode = os.lstat(path).st_mode
                if stat.S_ISLNK(mode):
                    os.lchown(path, 0, 0)
                elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                    os.chown(path, 0, 0)
                    os.chmod(path, 0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)
                else:
                    name = os.path.relpath(path, self.tree)
                    raise DeployError("build", f"{name} is neither file, folder nor link")
        settle(self.tree, final)


@contextmanager
def opened(
    app: str,
    final: Path,
    *,
    readable: Iterable[Path] = (),
    variables: dict[str, str] | None = None,
    given: dict[str, str] | None = None,
    trusted: Iterable[str] = (),
    named: Iterable[str] = (),
) -> Iterator[Sandbox]:
    """Yield a sandbox; `keep` turns its tree into the folder `final`, otherwise it is removed.

    `readable` are more paths that it sees, `given` its files below FILES (name: text). It can reach
    the hosts `trusted`, and the hosts `named` (by a repository or an index), which must be public.
    Each is a URL or a host with or without a port.
    """
    account, cache = build_account(app), f"{CACHE}/{app}-build"
    work = final.with_name(f".{final.name}")
    reached = addresses(trusted, named)
    known = {"HOME": "/tmp", "LC_ALL": "C.UTF-8", "XDG_CACHE_HOME": cache}
    known |= {"UV_CACHE_DIR": f"{cache}/uv", "npm_config_cache": f"{cache}/npm"}
    known |= variables or {}
    names = [f"{address} {host}\n" for address, _, host in reached]
    texts = {"environment": environment_file(known), **(given or {})}
    texts["hosts"] = "".join(["127.0.0.1 localhost\n::1 localhost\n", *names])
    stop(app)  # left by an interrupted deploy, like these folders
    for left in final.parent.glob(".*/tree"):
        shutil.rmtree(left.parent, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{app}-build-", dir=MEMORY) as memory:
            for path in (work / "tree", work / "tmp"):
                path.mkdir(parents=True)
                os.chown(path, account.pw_uid, account.pw_gid)
            work.chmod(0o700)
            for name, text in texts.items():
                Path(memory, name).write_text(text)
                os.chown(Path(memory, name), account.pw_uid, account.pw_gid)
            os.chown(memory, account.pw_uid, account.pw_gid)
            filter_network(app, account.pw_uid, reached)
            properties = PROPERTIES | {
                "User": account.pw_name,
                "TemporaryFileSystem": f"/:ro {final.parent}:ro {SHARED_MEMORY}",
                "CacheDirectory": f"{app}-build",
                "EnvironmentFile": f"{memory}/environment",
                "WorkingDirectory": final,
                "InaccessiblePaths": HIDDEN.format(app=app),
                "BindReadOnlyPaths": " ".join(
                    [SYSTEM, f"{memory}:{FILES}", f"{memory}/hosts:/etc/hosts", *map(str, readable)]
                ),
                "BindPaths": f"{work}/tree:{final} {work}/tmp:/tmp {work}/tmp:/var/tmp {cache}",
            }
            lines = [f"{name}={value}" for name, value in properties.items()]
            yield Sandbox(app, work / "tree", final, lines)
    finally:
        stop(app)
        shutil.rmtree(work, ignore_errors=True)
        execute(["nft", "delete", "table", "inet", table(app)], stderr=subprocess.DEVNULL)


def unit(app: str) -> str:
    """Return the unit's name. It is unique: the app's units have a dash after its name."""
    return f"{app}.build.service"


def table(app: str) -> str:
    """Return the nft table's name. It is unique, as app names have no dash."""
    return f"flaskstack_{app}-build"


def build_account(app: str) -> pwd.struct_passwd:
    """Return the build account. Raises DeployError when it is missing."""
    try:
        return pwd.getpwnam(f"{app}-build")
    except KeyError as error:
        reason = f"the account {app}-build is missing; site.yml creates it"
        raise DeployError("build", reason) from error


def execute(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a system program. Raises DeployError when it is missing."""
    try:
        return subprocess.run(command, text=True, errors="replace", check=False, **options)
    except FileNotFoundError as error:
        reason = f"{command[0]} is missing, and nothing is built without it"
        raise DeployError("build", reason) from error


def stop(app: str) -> None:
    """Stop all processes of the sandbox."""
    execute(["systemctl", "stop", "--quiet", unit(app)], stderr=subprocess.DEVNULL)


def filter_network(app: str, uid: int, reached: list[tuple[str, int, str]]) -> None:
    """Allow the build account only these addresses; replace the table atomically."""
    rules = "".join(
        f"    {'ip6' if ':' in address else 'ip'} daddr {address} tcp dport {port} accept\n"
        for address, port, _ in reached
    )
    text = TABLE.format(table=table(app), uid=uid, rules=rules)
    done = execute(
        ["nft", "--file", "-"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise DeployError("build", f"the network cannot be filtered: {last_lines(done.stdout)}")


def addresses(trusted: Iterable[str], named: Iterable[str]) -> list[tuple[str, int, str]]:
    """Resolve hosts to addresses with port and name.

    Unresolvable hosts and private addresses of `named` are left out.
    """
    found: dict[tuple[str, int, str], None] = {}
    for places, checked in ((trusted, False), (named, True)):
        known = {(address, port) for address, port, _ in found}
        for place in places:
            with suppress(OSError, ValueError):
                url = urlsplit(place if "://" in place else f"https://{place}")
                port = url.port or PORTS.get(url.scheme, 443)
                for address in numbers(url.hostname, port) if url.hostname else ():
                    if not checked or (address, port) in known or public(address):
                        found[address, port, url.hostname] = None
    return list(found)


def numbers(host: str, port: int) -> list[str]:
    """Return the addresses of a host, without zone ids of link-local ones."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [address.partition("%")[0] for *_, (address, *_) in found]


def public(address: str) -> bool:
    """Return whether an address is on the internet, not on the host, its network or its cloud."""
    known = ipaddress.ip_address(address)
    if known.version == 6 and known in NAT64:
        known = ipaddress.ip_address(int(known) & 0xFFFFFFFF)
    return known.is_global and not known.is_multicast and known != AZURE


def environment_file(variables: dict[str, str]) -> str:
    """Return a systemd environment file: all users could read variables set on the unit."""
    quoted = {name: re.sub(r'(["\\$`])', r"\\\1", str(text)) for name, text in variables.items()}
    return "".join(f'{name}="{text}"\n' for name, text in quoted.items())


def settle(made: Path, final: Path) -> None:
    """Flush a folder to disk and rename it to its final name."""
    subprocess.run(["sync", "--file-system", made], check=True)
    made.rename(final)
    files.sync(final.parent)
