"""Run code that is not root's as the build account, apart from all else that is on the host.

It sees programs and settings of the system, a folder of its own under the path that this will have,
and its cache; it reaches the addresses that were named for it. What came out becomes root's.
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

MEMORY = Path("/run")  # never on a disk
CACHE = Path("/var/cache")
FILES = "/run/build"  # where the sandbox has the files that it is given
PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
AZURE = ipaddress.ip_address("168.63.129.16")  # tells of the host, at a public address
PROPERTIES = BUILDS | {
    "CacheDirectoryMode": "0700",
    "MemoryMax": "60%",
    "OOMScoreAdjust": "900",  # of all on the host, it is what the kernel kills first
    "KillSignal": "SIGKILL",  # no process outlives the command
    "UMask": "0022",
}
SYSTEM = "/usr /etc /opt -/bin -/sbin -/lib -/lib32 -/lib64"
# What is in /etc of others, or of this app, is also closed by its mode.
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
    """A sandbox that is open: its tree, and how to run commands in it."""

    app: str
    tree: Path  # what is made, out of reach for all but root and the commands
    final: Path  # the path that the commands see it under
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
                f"journalctl --unit={unit(self.app)} tells why"
            ]
            reason = [f"{step} failed with code {done.returncode}:", *said, advise(output)]
            raise ValidationError("\n".join(filter(None, reason)))
        return output

    def keep(self, final: Path | None = None) -> None:
        """Give the tree to root, and its final name once it is on the disk.

        No process is left that could change it meanwhile: each is in the cgroup of its command,
        which systemd empties before the command counts as ended.
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
    """Have a sandbox, whose tree will be the folder `final` if it is kept, else nothing.

    `readable` are more paths that it sees, `given` its files below FILES (name: text).
    It reaches the hosts of `trusted`, and those of `named` (by a repository or an index, so they
    must be public); each is a URL or a host with or without a port.
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
    stop(app)  # what a cut deploy left, as these folders are
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
    """Name the unit. No process of the app's has such a name, since a dash follows the app's."""
    return f"{app}.build.service"


def table(app: str) -> str:
    """Name the table of nft. No other app's has such a name, since no app's has a dash."""
    return f"flaskstack_{app}-build"


def build_account(app: str) -> pwd.struct_passwd:
    """Return the account that builds; raises DeployError without one."""
    try:
        return pwd.getpwnam(f"{app}-build")
    except KeyError as error:
        reason = f"the account {app}-build is missing; site.yml creates it"
        raise DeployError("build", reason) from error


def execute(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of the system; raises DeployError when it is missing."""
    try:
        return subprocess.run(command, text=True, errors="replace", check=False, **options)
    except FileNotFoundError as error:
        reason = f"{command[0]} is missing, and nothing is built without it"
        raise DeployError("build", reason) from error


def stop(app: str) -> None:
    """End what is still running in the sandbox."""
    execute(["systemctl", "stop", "--quiet", unit(app)], stderr=subprocess.DEVNULL)


def filter_network(app: str, uid: int, reached: list[tuple[str, int, str]]) -> None:
    """Let the build account connect to these addresses alone; the table is replaced in one step."""
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
    """Return address, port and name of hosts; what has no address is left out."""
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
    """Return the addresses of a host, without the interface that a local one may name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [address.partition("%")[0] for *_, (address, *_) in found]


def public(address: str) -> bool:
    """Say whether an address is of the internet, and not of the host, its network or its cloud."""
    known = ipaddress.ip_address(address)
    if known.version == 6 and known in NAT64:
        known = ipaddress.ip_address(int(known) & 0xFFFFFFFF)
    return known.is_global and not known.is_multicast and known != AZURE


def environment_file(variables: dict[str, str]) -> str:
    """Return a file of variables as systemd reads it. It shows those of a unit to everybody."""
    quoted = {name: re.sub(r'(["\\$`])', r"\\\1", str(text)) for name, text in variables.items()}
    return "".join(f'{name}="{text}"\n' for name, text in quoted.items())


def settle(made: Path, final: Path) -> None:
    """Give a folder its final name, once all of it is on the disk."""
    subprocess.run(["sync", "--file-system", made], check=True)
    made.rename(final)
    files.sync(final.parent)
