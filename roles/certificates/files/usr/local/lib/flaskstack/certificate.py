# Ansible managed (role certificates of Flaskstack)
"""Activate and renew the certificate of a site.

    certificate.py SETTINGS activate    switch to the certificate of the settings, if it exists
    certificate.py SETTINGS renew       obtain a new certificate if one is due, and activate it
    certificate.py SETTINGS report      write the metrics, and log the reason of a failure

A certificate is a directory beside the link `current`, which nginx reads: selfsigned-*, provided-*
or acme-*. Switching renames the link, so that nginx never sees a certificate without its key.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

CHAIN, KEY = "fullchain.pem", "privkey.pem"
SELFSIGNED_DAYS = 397  # browsers reject longer lifetimes
PROVIDED_NOTICE = 14 * 86400  # seconds before its expiry during which `renew` fails
METRICS = {
    "expiry_timestamp_seconds": "Expiry of the certificate in use.",
    "last_success_timestamp_seconds": "Last check or renewal without a failure.",
    "failed": "1 if the last renewal failed.",
    "is_fallback": "1 if the certificate in use is not from the configured source.",
}


class CertificateError(Exception):
    """A failure, with a message for the journal and the play."""


class Site:
    """The certificates of a site, as configured by the role."""

    def __init__(self, settings: dict) -> None:
        """Use the settings, among them the wanted certificate as the prefix of its directory."""
        self.settings = SimpleNamespace(**settings)
        self.folder = Path(settings["folder"])
        self.state = Path(settings["state"])
        self.reason = self.state / "reason"

    @property
    def current(self) -> Path | None:
        """The certificate in use."""
        link = self.folder / "current"
        return self.folder / link.readlink().name if link.is_symlink() else None

    def newest(self, prefix: str) -> Path | None:
        """Return the newest certificate with a directory name that begins with `prefix`."""
        found = self.folder.glob(f"{prefix}*")
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)

    @property
    def is_due(self) -> bool:
        """Whether a new certificate is due: a third of the lifetime is left, or less."""
        wanted = self.newest(self.settings.wanted)
        if not wanted:
            return True
        start, end = lifetime(wanted)
        return time.time() >= end - (end - start) / 3

    def activate(self) -> bool:
        """Switch to the certificate of the settings; return whether that changed anything.

        Until the ACME server has issued one, the current or the self-signed one stays active.
        """
        previous = self.current
        wanted = self.newest(self.settings.wanted)
        if self.settings.source == "acme" and self.is_due:
            wanted = previous or self.newest("selfsigned-")
        if not wanted:
            raise CertificateError("The certificate is not on the host. Run site.yml")
        if wanted == previous:
            return False
        self.switch(wanted)
        try:
            reload_nginx()
        except CertificateError:
            if previous:
                self.switch(previous)
            raise
        keep = {wanted, previous, *map(self.newest, ("selfsigned-", "provided-", "acme-"))}
        for unused in {*self.folder.glob("*-*")} - keep:
            shutil.rmtree(unused)
        return True

    def switch(self, target: Path) -> None:
        """Point the link at a certificate."""
        new = self.folder / ".current"
        new.unlink(missing_ok=True)
        new.symlink_to(target.name)
        new.replace(self.folder / "current")

    def renew(self) -> None:
        """Obtain a new certificate if one is due, and activate it."""
        self.reason.unlink(missing_ok=True)
        if self.settings.source == "acme" and self.is_due:
            self.obtain()
        if self.settings.source == "selfsigned" and self.is_due:
            self.extend()
        self.activate()
        if self.settings.source == "provided":
            self.check_expiry()

    def obtain(self) -> None:
        """Request a certificate from the ACME server; its environment names files of secrets."""
        home = self.state / "lego"
        shutil.rmtree(home / "certificates", ignore_errors=True)
        environment = os.environ | self.settings.environment
        done = run(*self.settings.lego, cwd=home, env=environment)
        if done.returncode and "accountDoesNotExist" in done.stderr:  # register again
            shutil.rmtree(home / "accounts", ignore_errors=True)
            done = run(*self.settings.lego, cwd=home, env=environment)
        sys.stderr.write(done.stderr)
        if done.returncode:
            errors = re.sub(r"(?m)^.*\[(INFO|WARN)\].*$|^[\d/]+ [\d:]+ ", "", done.stderr)
            reason = "; ".join(line.strip() for line in errors.splitlines() if line.strip())
            raise CertificateError(f"{self.settings.server} issued no certificate: {reason}")
        (key,) = (home / "certificates").glob("*.key")
        new = self.folder / ".new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        shutil.copy(key.with_suffix(".crt"), new / CHAIN)
        shutil.copy(key, new / KEY)
        shutil.rmtree(home / "certificates")
        new.rename(self.folder / f"{self.settings.wanted}-{time.time_ns()}")

    def extend(self) -> None:
        """Sign the self-signed certificate again, with the same key and names."""
        folder = self.newest(self.settings.wanted)
        if not folder:
            raise CertificateError("The self-signed certificate is not on the host. Run site.yml")
        command = ["openssl", "x509", "-in", CHAIN, "-signkey", KEY, "-out", ".new"]
        command += ["-days", str(SELFSIGNED_DAYS), "-set_serial", f"0x{secrets.token_hex(16)}"]
        check(run(*command, cwd=folder), "openssl failed")
        previous = (folder / CHAIN).read_bytes()
        (folder / ".new").replace(folder / CHAIN)
        try:
            reload_nginx()
        except CertificateError:
            (folder / CHAIN).write_bytes(previous)  # still due, so that the next run tries again
            raise

    def check_expiry(self) -> None:
        """Fail when the provided certificate expires soon."""
        start, end = lifetime(self.folder / "current")
        if time.time() > end - min(PROVIDED_NOTICE, (end - start) / 3):
            raise CertificateError(
                f"The provided certificate expires on {datetime.fromtimestamp(end):%Y-%m-%d}. "
                "Replace the files of certificates_provided_certificate and "
                "certificates_provided_key, and run site.yml"
            )

    def report(self) -> None:
        """Write the metrics, and log the reason when systemd reports a failure."""
        result = os.environ.get("SERVICE_RESULT", "success")
        if result != "success":
            if not self.reason.exists():
                self.reason.write_text(f"systemd reports: {result}\n")
            message = f"The certificate of {self.settings.app} was not renewed. "
            for line in (message + self.reason.read_text()).splitlines():
                print(f"<3>{line}")  # priority err in the journal
        self.write_metrics(result != "success")

    def write_metrics(self, failed: bool = False) -> None:
        """Write the metrics for a node exporter's textfile collector."""
        success = self.state / "success"
        if not failed:
            success.touch()
        current = self.current
        source = current.name.partition("-")[0] if current else ""
        values = {
            "expiry_timestamp_seconds": lifetime(current)[1] if current else 0,
            "last_success_timestamp_seconds": success.stat().st_mtime if success.exists() else 0,
            "failed": failed,
            "is_fallback": source != self.settings.source,
        }
        text = "".join(
            f"# HELP flaskstack_certificate_{name} {METRICS[name]}\n"
            f"# TYPE flaskstack_certificate_{name} gauge\n"
            f'flaskstack_certificate_{name}{{app="{self.settings.app}"}} {int(value)}\n'
            for name, value in values.items()
        )
        path = Path(self.settings.metrics)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(path)


def lifetime(folder: Path) -> tuple[float, float]:
    """Return when a certificate becomes valid and when it expires, in seconds since 1970."""
    options = ("-noout", "-startdate", "-enddate", "-dateopt", "iso_8601")
    done = check(run("openssl", "x509", "-in", str(folder / CHAIN), *options), "openssl failed")
    start, end = (line.partition("=")[2] for line in done.stdout.splitlines())
    return datetime.fromisoformat(start).timestamp(), datetime.fromisoformat(end).timestamp()


def reload_nginx() -> None:
    """Validate the configuration of nginx and reload it, if it is running."""
    if run("systemctl", "is-active", "--quiet", "nginx").returncode == 0:
        check(run("nginx", "-q", "-t"), "nginx rejected the new certificate")
        check(run("systemctl", "reload", "nginx"), "nginx could not reload the new certificate")


def check(done: subprocess.CompletedProcess[str], problem: str) -> subprocess.CompletedProcess[str]:
    """Raise CertificateError with the output of a failed command."""
    if done.returncode:
        raise CertificateError(f"{problem}: {(done.stderr + done.stdout).strip()}")
    return done


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def main(settings: str, action: str) -> int:
    """Run an action; return the exit code."""
    site = Site(json.loads(Path(settings).read_text()))
    with (site.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the timer and a playbook may run at once
        try:
            if action == "activate":
                if changed := site.activate():
                    site.write_metrics()
                print(json.dumps({"changed": changed, "due": site.is_due}))
            elif action == "renew":
                site.renew()
            else:
                site.report()
        except CertificateError as error:
            site.reason.write_text(f"{error}\n")
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
