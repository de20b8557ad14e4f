"""Run untrusted code as the build account, isolated from the rest of the host.

The code sees system programs and settings, a folder under its final path, and its cache. It can
reach only named addresses. The result is then owned by root.
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
import time
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
REPORTED = 30  # seconds until the failure of a command is reported, at most
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
# In /etc, file modes also protect the data of this app and of others.
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
        result = execute(command, **settings)
        output = (result.stdout if piped else result.stderr) or ""
        if result.returncode:
            lines = decisive(output.splitlines()) or [f"See journalctl --unit={unit(self.app)}"]
            reason = [f"{step} failed with code {result.returncode}:", *lines, advise(output)]
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
    inputs: dict[str, str] | None = None,
    trusted: Iterable[str] = (),
    named: Iterable[str] = (),
) -> Iterator[Sandbox]:
    """Yield a sandbox; `keep` turns its tree into the folder `final`, otherwise it is removed.

    Commands see `readable` paths, `inputs` (texts by file name below FILES) and the environment
    `variables`. They can reach the hosts `trusted`, and those `named` by a repository or an
    index, which must be public. Each is a URL or a host with or without a port.
    """
    account, cache = build_account(app), f"{CACHE}/{app}-build"
    work = final.with_name(f".{final.name}")
    reachable = addresses(trusted, named)
    environment = {"HOME": "/tmp", "LC_ALL": "C.UTF-8", "XDG_CACHE_HOME": cache}
    environment |= {"UV_CACHE_DIR": f"{cache}/uv", "npm_config_cache": f"{cache}/npm"}
    environment |= variables or {}
    names = [f"{address} {host}\n" for address, _, host in reachable]
    texts = {"environment": environment_file(environment), **(inputs or {})}
    texts["hosts"] = "".join(["127.0.0.1 localhost\n::1 localhost\n", *names])
    stop(app)  # an interrupted deploy may have left processes and folders
    for tree in final.parent.glob(".*/tree"):
        shutil.rmtree(tree.parent, ignore_errors=True)
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
            filter_network(app, account.pw_uid, reachable)
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
    """Return the unit's name. It is unique, as the app's other units have a dash after its name."""
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
        reason = f"{command[0]} is missing, which builds need"
        raise DeployError("build", reason) from error


def stop(app: str) -> None:
    """Stop all processes of the sandbox, and wait until its unit can start again.

    systemd keeps a failed unit until its failure is reported.
    """
    execute(["systemctl", "stop", "--quiet", unit(app)], stderr=subprocess.DEVNULL)
    show = ["systemctl", "show", "--value", "--property=LoadState", unit(app)]
    deadline = time.monotonic() + REPORTED
    while execute(show, stdout=subprocess.PIPE).stdout.strip() == "loaded":
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)


def filter_network(app: str, uid: int, reachable: list[tuple[str, int, str]]) -> None:
    """Allow the build account only these addresses; replace the table atomically."""
    rules = "".join(
        f"    {'ip6' if ':' in address else 'ip'} daddr {address} tcp dport {port} accept\n"
        for address, port, _ in reachable
    )
    text = TABLE.format(table=table(app), uid=uid, rules=rules)
    result = execute(
        ["nft", "--file", "-"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if result.returncode:
        raise DeployError("build", f"the network cannot be filtered: {last_lines(result.stdout)}")


def addresses(trusted: Iterable[str], named: Iterable[str]) -> list[tuple[str, int, str]]:
    """Resolve hosts to addresses with port and name.

    Unresolvable hosts and private addresses of `named` are left out.
    """
    found: dict[tuple[str, int, str], None] = {}
    for hosts, must_be_public in ((trusted, False), (named, True)):
        allowed = {(address, port) for address, port, _ in found}
        for host in hosts:
            with suppress(OSError, ValueError):
                url = urlsplit(host if "://" in host else f"https://{host}")
                port = url.port or PORTS.get(url.scheme, 443)
                for address in resolve(url.hostname, port) if url.hostname else ():
                    if not must_be_public or (address, port) in allowed or is_public(address):
                        found[address, port, url.hostname] = None
    return list(found)


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, without zone ids of link-local ones."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [address.partition("%")[0] for *_, (address, *_) in found]


def is_public(address: str) -> bool:
    """Return whether an address is on the internet, not on the host, its network or its cloud."""
    number = ipaddress.ip_address(address)
    if number.version == 6 and number in NAT64:
        number = ipaddress.ip_address(int(number) & 0xFFFFFFFF)
    return number.is_global and not number.is_multicast and number != AZURE


def environment_file(variables: dict[str, str]) -> str:
    """Return a systemd environment file. All users could read variables set on the unit itself."""
    quoted = {name: re.sub(r'(["\\$`])', r"\\\1", str(text)) for name, text in variables.items()}
    return "".join(f'{name}="{text}"\n' for name, text in quoted.items())


def settle(new: Path, final: Path) -> None:
    """Flush a folder to disk and rename it to its final name."""
    subprocess.run(["sync", "--file-system", new], check=True)
    new.rename(final)
    files.sync(final.parent)
