# Ansible managed (role certificates of Flaskstack)
"""Keep the certificate of an app's site: get it, put it in use, renew it, tell how that went.

    certificate.py SETTINGS prepare [--check]   what needs no other server, if only a placeholder
    certificate.py SETTINGS due                 why `renew` would do something
    certificate.py SETTINGS renew               what the timer runs
    certificate.py SETTINGS failed              what runs when that failed

The first two print JSON. Each certificate is a folder beside the link `current`, which names the
one in use. A new one is put in use by renaming that link; nginx tests it, and when it does not like
what it sees, the link goes back.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SOURCES = ("selfsigned", "provided", "acme")
SELFSIGNED_DAYS = 397  # what browsers take of a certificate that somebody told them to trust
PROVIDED_NOTICE = (
    14 * 86400
)  # seconds before its end that a provided certificate is complained about, at most
CHAIN, KEY, ORDER = "fullchain.pem", "privkey.pem", "order.json"


class Problem(Exception):
    """What an operator is to read."""


@dataclass(frozen=True)
class Certificate:
    """A folder with a certificate and its key. Times are in seconds since 1970."""

    folder: Path
    names: frozenset[str]
    start: float
    end: float

    @property
    def source(self) -> str:
        """Where it comes from."""
        return self.folder.name.partition("-")[0]

    @property
    def due(self) -> float:
        """When a new one is due: with a third of its life left, however short that is."""
        return self.end - (self.end - self.start) / 3


@dataclass(frozen=True)
class Settings:
    """What the role wrote down."""

    app: str
    source: str
    names: list[str]
    folder: Path
    state: Path
    metrics: Path
    key: str
    provided: str
    acme: dict[str, Any]

    @classmethod
    def read(cls, path: str) -> Settings:
        """Return what a file says."""
        given = json.loads(Path(path).read_text())
        given.pop("_")  # who wrote it
        paths = {name: Path(given[name]) for name in ("folder", "state", "metrics")}
        return cls(**given | paths | {"names": [plain(name) for name in given["names"]]})

    @property
    def current(self) -> Path:
        """The link that nginx goes by."""
        return self.folder / "current"

    @property
    def reason(self) -> Path:
        """Where it is kept why the last attempt failed."""
        return self.state / "reason"

    @property
    def order(self) -> dict[str, str]:
        """What of an ACME certificate it cannot say itself."""
        return {"directory": self.acme["directory"], "key": self.key}


def main() -> int:
    """Do what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("settings")
    parser.add_argument("do", choices=("prepare", "due", "renew", "failed"))
    parser.add_argument("--check", action="store_true", help="change nothing")
    given = parser.parse_args()
    settings = Settings.read(given.settings)
    try:
        with locked(settings):
            if given.do == "prepare":
                print(json.dumps({"changed": prepare(settings, given.check)}))
            elif given.do == "due":
                print(json.dumps({"reason": why_due(settings)}))
            elif given.do == "renew":
                renew(settings)
            else:
                failed(settings)
    except Problem as problem:
        if given.do == "renew":
            write(settings.reason, f"{problem}\n")
        print(problem, file=sys.stderr)
        return 1
    return 0


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Wait until nobody else is at it: the timer and a playbook may meet."""
    with (settings.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(settings: Settings, check: bool = False) -> bool:
    """Have a certificate in use that needs nobody else; return whether that changes anything.

    An ACME certificate comes later, through nginx. Until then whatever is in use stays so.
    """
    before = target(settings)
    wanted = wanted_now(settings)
    if wanted and wanted.folder == before:
        if not check:
            tell(settings)
        return False
    if not check:
        put_in_use(settings, wanted or make(settings, "selfsigned"))
        tell(settings)
    return True


def wanted_now(settings: Settings) -> Certificate | None:
    """Return which of those that are there is to be in use, until a better one comes."""
    if settings.source == "acme":
        return ready(settings) or in_use(settings) or usable(settings, "selfsigned")
    return ready(settings)


def ready(settings: Settings) -> Certificate | None:
    """Return the certificate that the settings ask for, when it is there already."""
    if settings.source == "provided":
        return look(settings.folder / settings.provided)
    return usable(settings, settings.source)


def why_due(settings: Settings) -> str:
    """Return why `renew` has something to do; an empty string when it has nothing."""
    now = in_use(settings)
    if not now:
        return "there is none"
    if now.source != settings.source:
        return f"the one in use is {now.source}"
    if settings.source == "provided":
        return ""
    return why_unusable(settings, now)


def why_unusable(settings: Settings, certificate: Certificate) -> str:
    """Return why a certificate is not, or no longer, what the settings ask for."""
    if certificate.names != frozenset(settings.names):
        return f"it is for {', '.join(sorted(certificate.names))}"
    if time.time() >= certificate.due:
        return f"it ends on {date(certificate.end)}"
    if certificate.source == "acme":
        try:
            order = json.loads((certificate.folder / ORDER).read_text())
        except (OSError, ValueError):
            order = {}
        if order != settings.order:
            return "it was asked for at another server, or with another kind of key"
    return ""


def renew(settings: Settings) -> None:
    """Get a new certificate when it is time, and put it in use."""
    # In case it does not come to its end.
    write(settings.reason, f"{settings.app}-certificate was stopped before it was done\n")
    reason = why_due(settings)
    if reason:
        print(f"A new certificate is due: {reason}", flush=True)
        put_in_use(settings, ready(settings) or make(settings, settings.source))
    now = in_use(settings)
    assert now
    if settings.source == "provided":
        complain_about_age(now)
    settings.reason.unlink()
    tell(settings)
    print(f"{', '.join(sorted(now.names))}: {now.source}, until {date(now.end)}")


def complain_about_age(certificate: Certificate) -> None:
    """Raise Problem when a certificate that only its owner can renew comes to its end."""
    left = certificate.end - time.time()
    if left < min(PROVIDED_NOTICE, certificate.end - certificate.due):
        state = "ends" if left > 0 else "ended"
        raise Problem(
            f"The certificate that was provided {state} on {date(certificate.end)}. Put a newer "
            "one where certificates_provided_certificate and certificates_provided_key say, "
            "and run site.yml"
        )


def failed(settings: Settings) -> None:
    """Say that a renewal failed where people and machines look."""
    try:
        reason = settings.reason.read_text().strip()
    except OSError:
        reason = f"{settings.app}-certificate could not begin"
    now = in_use(settings)
    held = (
        f"The one in use is {now.source} and ends on {date(now.end)}" if now else "None is in use"
    )
    # <3> is journald's word for an error.
    message = f"The certificate of {settings.app} was not renewed. {held}. {reason}"
    print("\n".join(f"<3>{line}" for line in message.splitlines()))
    tell(settings, success=False)


def make(settings: Settings, source: str) -> Certificate:
    """Make or get a certificate."""
    if settings.source == "provided":
        raise Problem(
            "The certificate that was provided is not on the host with its key. Run site.yml"
        )
    with tempfile.TemporaryDirectory(prefix=".new-", dir=settings.folder) as folder:
        new = Path(folder)
        if source == "acme":
            ask(settings, new)
        else:
            sign(settings, new)
        place = settings.folder / f"{source}-{digest(new)}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(new, place)
    certificate = look(place)
    if not certificate:
        raise Problem(f"{place} has no certificate with its key")
    if reason := why_unusable(settings, certificate):
        raise Problem(f"The new certificate is not what was asked for: {reason}")
    return certificate


def sign(settings: Settings, folder: Path) -> None:
    """Make a key, and a certificate that nobody vouches for."""
    names = "\n".join(
        f"{'IP' if is_address(name) else 'DNS'}.{number} = {name}"
        for number, name in enumerate(settings.names, 1)
    )
    write(
        folder / "openssl.cnf",
        "[req]\nprompt = no\ndistinguished_name = subject\nx509_extensions = site\n"
        f"[subject]\nCN = {settings.app}\n"
        "[site]\nbasicConstraints = critical, CA:FALSE\n"
        "keyUsage = critical, digitalSignature, keyEncipherment\n"
        "extendedKeyUsage = serverAuth\nsubjectKeyIdentifier = hash\nsubjectAltName = @names\n"
        f"[names]\n{names}\n",
    )
    kind = ["rsa:2048"] if settings.key == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-sha256",
        "-days",
        str(SELFSIGNED_DAYS),
        "-newkey",
        *kind,
    ]
    command += ["-config", "openssl.cnf", "-keyout", KEY, "-out", CHAIN]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"openssl made no certificate: {done.stderr.strip()}")
    (folder / "openssl.cnf").unlink()


def ask(settings: Settings, folder: Path) -> None:
    """Have an ACME server certify the names; its reason is in the Problem if it does not."""
    home = settings.state / "lego"
    made = home / "certificates"
    shutil.rmtree(made, ignore_errors=True)
    done = lego(settings, home)
    # The server has forgotten the account, or never knew it: it gets a new one.
    if done.returncode and "accountDoesNotExist" in done.stderr:
        shutil.rmtree(home / "accounts", ignore_errors=True)
        done = lego(settings, home)
    sys.stderr.write(done.stderr)
    if done.returncode:
        names = ", ".join(settings.names)
        raise Problem(
            f"{settings.acme['directory']} gave none for {names}: {reason_in(done.stderr)}"
        )
    (chain,) = (path for path in made.glob("*.crt") if not path.name.endswith(".issuer.crt"))
    write(folder / CHAIN, chain.read_text())
    write(folder / KEY, chain.with_suffix(".key").read_text())
    write(folder / ORDER, json.dumps(settings.order))
    shutil.rmtree(made)


def lego(settings: Settings, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the ACME client. What is secret comes in files that the environment names."""
    acme = settings.acme
    command = [
        "lego",
        "--accept-tos",
        "--path",
        str(home),
        "--server",
        acme["directory"],
        "--email",
        acme["email"],
    ]
    command += ["--key-type", "rsa2048" if settings.key == "rsa" else "ec256"]
    command += [word for name in settings.names for word in ("--domains", name)]
    environment = dict(os.environ)
    if acme["ca"]:
        environment["LEGO_CA_CERTIFICATES"] = acme["ca"]
    if acme["challenge"] == "dns-01":
        command += ["--dns", "digitalocean"]
        command += [
            word for resolver in acme["resolvers"] for word in ("--dns.resolvers", resolver)
        ]
        environment["DO_AUTH_TOKEN_FILE"] = acme["token"]
        environment["DO_API_URL"] = acme["api"]
        environment["DO_PROPAGATION_TIMEOUT"] = str(acme["patience"])
    else:
        command += ["--http", "--http.webroot", acme["webroot"]]
    return subprocess.run(
        [*command, "run"], cwd=home, env=environment, capture_output=True, text=True, check=False
    )


def reason_in(output: str) -> str:
    """Return what of the client's words tells why it failed: the server's own, in one line."""
    lines = [
        re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", "", line).strip()
        for line in output.splitlines()
    ]
    told = [line for line in lines if line and not line.startswith(("[INFO]", "[WARN]"))]
    reasons = [line for line in told if re.search(r"error: ?\d{3}|urn:ietf|\[.+\] ", line)] or told[
        -3:
    ]
    return "; ".join(reasons) or "the ACME client ended without a word"


def put_in_use(settings: Settings, certificate: Certificate) -> None:
    """Rename the link, have nginx test and read it again; all as before when that fails."""
    before = target(settings)
    point(settings, certificate.folder)
    if runs("nginx"):
        done = command("nginx", "-q", "-t")
        if not done.returncode:
            done = command("systemctl", "reload", "nginx")
        if done.returncode:
            back = " The one before is in use again." if before else ""
            if before:
                point(settings, before)
            said = (done.stderr + done.stdout).strip()
            raise Problem(f"nginx did not take the new certificate.{back} It says: {said}")
    print(f"In use now: {certificate.folder.name}", file=sys.stderr)
    prune(settings, {certificate.folder, before})


def point(settings: Settings, folder: Path) -> None:
    """Let the link name a folder, at once."""
    new = settings.folder / ".current"
    new.unlink(missing_ok=True)
    new.symlink_to(folder.name)
    new.replace(settings.current)


def prune(settings: Settings, keep: set[Path | None]) -> None:
    """Remove what is neither to be kept nor the newest of its source, to the second."""
    for source in SOURCES:
        found = filter(None, map(look, settings.folder.glob(f"{source}-*")))
        newest = max(found, key=lambda one: (one.start, one.folder in keep), default=None)
        keep |= {newest.folder} if newest else set()
    keep.add(settings.folder / settings.provided)
    for path in settings.folder.iterdir():
        if path.is_dir() and not path.is_symlink() and path not in keep:
            shutil.rmtree(path)


def usable(settings: Settings, source: str) -> Certificate | None:
    """Return the certificate of a source that is as the settings ask for, and lasts longest."""
    found = [
        one
        for one in map(look, settings.folder.glob(f"{source}-*"))
        if one and not why_unusable(settings, one)
    ]
    return max(found, key=lambda one: (one.end, one.folder == target(settings)), default=None)


def in_use(settings: Settings) -> Certificate | None:
    """Return the certificate that nginx reads."""
    folder = target(settings)
    return look(folder) if folder else None


def target(settings: Settings) -> Path | None:
    """Return the folder that the link names."""
    return (
        settings.folder / settings.current.readlink().name
        if settings.current.is_symlink()
        else None
    )


def look(folder: Path) -> Certificate | None:
    """Return what is in a folder; nothing when it is not a certificate with its own key."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            folder / CHAIN, folder / KEY, password=""
        )
    except (OSError, ssl.SSLError):
        return None
    asked = ("-noout", "-startdate", "-enddate", "-dateopt", "iso_8601", "-ext", "subjectAltName")
    said = command("openssl", "x509", "-in", str(folder / CHAIN), *asked).stdout
    dates = dict(re.findall(r"^(notBefore|notAfter)=(.+)$", said, re.MULTILINE))
    if len(dates) < 2:
        return None
    return Certificate(
        folder,
        frozenset(plain(value) for value in re.findall(r"(?:DNS|IP Address):([^,\s]+)", said)),
        seconds(dates["notBefore"]),
        seconds(dates["notAfter"]),
    )


def tell(settings: Settings, success: bool = True) -> None:
    """Write what a node exporter's textfile collector reads."""
    last = settings.state / "success"
    if success:
        write(last, str(int(time.time())))
    now = in_use(settings)
    label = f'{{app="{settings.app}"}}'
    figures = [
        (
            "expiry_timestamp_seconds",
            "When the certificate in use ends.",
            int(now.end) if now else 0,
        ),
        (
            "last_success_timestamp_seconds",
            "When it was last seen to be as it should, or made so.",
            last.read_text() if last.exists() else 0,
        ),
        ("failed", "1 when the last attempt to renew it failed.", int(not success)),
        (
            "placeholder",
            "1 when it is not the one that is asked for.",
            int(not now or now.source != settings.source),
        ),
    ]
    text = "".join(
        f"# HELP flaskstack_certificate_{name} {meaning}\n"
        f"# TYPE flaskstack_certificate_{name} gauge\n"
        f"flaskstack_certificate_{name}{label} {value}\n"
        for name, meaning, value in figures
    )
    write(settings.metrics, text, 0o644)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that nobody ever sees half of it."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def digest(folder: Path) -> str:
    """Return a name for a certificate and its key."""
    return hashlib.sha256((folder / CHAIN).read_bytes() + (folder / KEY).read_bytes()).hexdigest()[
        :16
    ]


def runs(unit: str) -> bool:
    """Tell whether a unit is up."""
    return command("systemctl", "is-active", "--quiet", unit).returncode == 0


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return what became of it."""
    return subprocess.run(words, capture_output=True, text=True, check=False)


def is_address(name: str) -> bool:
    """Tell whether a name is an IP address."""
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def plain(name: str) -> str:
    """Return a name, or an address, as it is compared."""
    return str(ipaddress.ip_address(name)) if is_address(name) else name.lower()


def seconds(moment: str) -> float:
    """Return a moment, as openssl writes it, in seconds since 1970."""
    return datetime.strptime(moment.strip(), "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def date(moment: float) -> str:
    """Write a moment as people do."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


if __name__ == "__main__":
    sys.exit(main())
