"""Run independent audit tools against a host, as their authors recommend, and parse the results.

`run` is a function that runs a command as root on a host and returns its output.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[[str], str]
# Suggestions of lynis that do not apply to these hosts; docs/audits.md gives the reasons.
LYNIS_SKIPPED = (
    "DBS-1884",  # a password for Redis' default user, which the ACL disables
    "DBS-1886",  # renamed commands, which the ACL forbids
    "DBS-1888",  # a listen address, although there are only sockets
    "DEB-0810",  # a check for known bugs of testing and sid before each installation
    "FINT-4350",  # file integrity monitoring, which needs storage off the host
    "MALW-3280",  # virus scanners
    "NETW-2705",  # the number of name servers
    "USB-3000",  # a USB device guard
    "KRNL-6000",  # the kernel, which a container shares with the machine; the next two as well
    "MACF-6290",  # AppArmor or similar
    "TIME-3104",  # time synchronization
)
# Accepted findings of testssl.sh, for the reasons in docs/audits.md.
TLS_SKIPPED = ("BREACH", "cert_revocation")
SEVERITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")


def install(run: Run, *packages: str) -> None:
    """Install Debian packages on a host."""
    run(
        "DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends"
        f" -o DPkg::Lock::Timeout=300 {' '.join(packages)} >/dev/null"
    )


@dataclass
class Lynis:
    """The result of a lynis audit."""

    index: int
    warnings: list[str]
    suggestions: list[str]


def lynis(run: Run, skipped: tuple[str, ...] = ()) -> Lynis:
    """Audit a host with lynis, with all tests except those named."""
    profile = "".join(f"skip-test={test}\\n" for test in skipped)
    report = run(
        f"printf '{profile}' >/root/audit.prf; cd /root;"
        " lynis audit system --quiet --no-colors --profile /root/audit.prf >/dev/null;"
        " cat /var/log/lynis-report.dat"
    )

    def reported(key: str) -> list[str]:
        found = re.findall(rf"^{key}\[\]=([^|]*)\|([^|]*)\|([^|]*)", report, re.MULTILINE)
        return [": ".join(part for part in entry if part not in ("", "-")) for entry in found]

    (index,) = re.findall(r"^hardening_index=(\d+)", report, re.MULTILINE)
    return Lynis(int(index), reported("warning"), reported("suggestion"))


@dataclass
class Tls:
    """The result of testssl.sh."""

    grade: str
    reasons: list[str]
    findings: dict[str, list[str]]

    def at_least(self, severity: str) -> list[str]:
        """Return the findings of this severity or higher."""
        above = SEVERITIES[SEVERITIES.index(severity) :]
        return [finding for name in above for finding in self.findings.get(name, [])]


def tls(run: Run, address: str, name: str, ca: str) -> Tls:
    """Audit a site's TLS with testssl.sh, which runs on a host and trusts the certificate `ca`."""
    run(f"rm -f /root/testssl.json; cat >/root/ca.pem <<'PEM'\n{ca}\nPEM")
    run(
        "cd /root; testssl --quiet --color 0 --warnings off --nodns none --add-ca ca.pem"
        f" --ip {address} --jsonfile testssl.json {name}:443 >testssl.txt 2>&1 || test $? -lt 200"
    )
    entries = json.loads(run("cat /root/testssl.json"))
    findings: dict[str, list[str]] = {}
    for entry in entries:
        if not entry["id"].startswith(TLS_SKIPPED):
            finding = f"{entry['id']}: {entry['finding']}"
            findings.setdefault(entry["severity"], []).append(finding)
    texts = {entry["id"]: entry["finding"] for entry in entries}
    reasons = [text for key, text in texts.items() if key.startswith("grade_cap_reason")]
    return Tls(texts["overall_grade"], reasons, findings)


# Fallback algorithms for older clients; docs/ssh.md has the reasons.
SSH_DOCUMENTED = (
    "does not provide protection against post-quantum|kex ecdh-sha2-nistp|: using encrypt-and-MAC"
    "|key ecdsa-sha2-nistp|kex diffie-hellman-group14-sha256: 2048-bit"
)


def undocumented_ssh(address: str) -> list[str]:
    """Return the findings of ssh-audit that docs/ssh.md does not list."""
    return [text for text in ssh_audit(address) if not re.search(SSH_DOCUMENTED, text)]


def tool(name: str, *arguments: str, stdin: str = "") -> Any:
    """Run a tool of this Python environment and return its JSON output."""
    command = [Path(sys.executable).with_name(name), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.stdout.strip(), done.stderr
    return json.loads(done.stdout)


def ssh_audit(address: str) -> list[str]:
    """Return the findings of ssh-audit, each with its severity."""
    report = tool("ssh-audit", "--json", "--skip-rate-test", address)
    found = [
        f"{severity}: {kind} {entry['algorithm']}: {reason}"
        for kind in ("kex", "key", "enc", "mac")
        for entry in report[kind]
        for severity in ("fail", "warn")
        for reason in entry.get("notes", {}).get(severity, [])
    ]
    return found + [f"fail: {flaw['name']}" for flaw in report.get("cves", [])]


def open_ports(run: Run, address: str) -> list[int]:
    """Return the open TCP ports of an address, as found by nmap on another host."""
    six = "-6" if ":" in address else ""
    output = run(
        f"nmap {six} -sS -Pn -n -p- -T4 --min-rate 10000 --max-retries 2 --open -oG - {address}"
    )
    assert "Nmap done" in output, output
    return sorted(int(port) for port in re.findall(r"(\d+)/open/tcp", output))


def gixy(run: Run) -> list[str]:
    """Return the findings of gixy for a host's nginx, each with its severity."""
    # Gixy reports upstream's vulnerable versions and ignores Debian's fixes; upgrades cover those.
    # A self-signed certificate gets no HSTS on purpose, here and in the plain installation.
    # The unit has LimitNOFILE instead of nginx.conf worker_rlimit_nofile.
    skipped = "nginx_cves,hsts_header,worker_rlimit_nofile_vs_connections"
    issues = tool(
        "gixy", "--format", "json", "--skips", skipped, "-", stdin=run("nginx -T 2>/dev/null")
    )
    return sorted(f"{one['severity']}: {one['plugin']}: {one['summary']}" for one in issues)


def exposure(run: Run, unit: str) -> float:
    """Return the exposure of a unit from systemd-analyze, from 0 (none) to 10."""
    output = run(f"systemd-analyze security --no-pager '{unit}'")
    return float(re.findall(r"Overall exposure level for \S+: ([0-9.]+)", output)[0])
