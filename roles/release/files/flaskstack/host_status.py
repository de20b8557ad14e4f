"""What an operator wants to know about a host, from its own programs.

Each function returns the part of the status that has its name. A program that is not installed
gives an empty part.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flaskstack.app_dir import TIME
from flaskstack.units import command, parse

Run = Callable[[list[str]], tuple[int, str, str]]

METRICS = Path("/var/lib/flaskstack/metrics")  # files for a node exporter's textfile collector
SAMPLE = re.compile(r"^(flaskstack_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
SERVERS = ("nginx.service", "mariadb.service", "mysql.service")
PACKAGES = ("nginx", "mariadb-server", "mysql-server", "redis-server", "openssh-server")
DISK_TYPES = {"ext4", "ext3", "xfs", "btrfs", "zfs", "overlay", "f2fs"}
TIMEOUT, APT_TIMEOUT = 20, 60  # seconds; a hanging server must not hang the status
# Messages of sshd about logins that failed; one per attempt.
FAILED_LOGIN = r"^(Failed \S+ for|Invalid user|Connection \w+ by authenticating user) .*"
LOGIN_HOURS = 24
ERROR = re.compile(r'"status":5\d\d,')
ERROR_MINUTES = 5


def host_status(run: Run = command, now: float | None = None) -> dict[str, Any]:
    """Return the status of this host. Takes some seconds: apt and needrestart are slow."""
    return quick_status(run, now) | slow_status(run)


def quick_status(run: Run = command, now: float | None = None) -> dict[str, Any]:
    """Return the parts that may be queried every minute."""
    now = time.time() if now is None else now
    samples = read_metrics()
    return {
        "time": int(now),
        "uptime": int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        "units": units(run),
        "certificates": certificates(samples, now),
        "backups": backups(samples, now),
        "disks": disks(),
        "memory": memory(run),
        "replication": replication(run),
        "bans": bans(run),
    }


def slow_status(run: Run = command) -> dict[str, Any]:
    """Return the parts that take a second or more."""
    return {
        "versions": versions(run),
        "updates": updates(run),
        "restarts": restarts(run),
        "failed_logins": failed_logins(run),
    }


def installed(run: Run, argv: list[str], limit: int = TIMEOUT) -> tuple[int, str]:
    """Run a program with a time limit; return its exit code (127 if it is missing) and output."""
    try:
        code, output, _ = run(["timeout", str(limit), *argv])
    except OSError:
        return 127, ""
    return code, output


def units(run: Run) -> dict[str, str]:
    """Return the units that should run and do not, with their state.

    These are failed units, and enabled services, sockets and timers that are not active. Services
    that run once, and units whose conditions are not met, are not expected to be active.
    """
    listing = ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "--state=enabled"]
    _, enabled = installed(run, [*listing, "--type=service", "--type=socket", "--type=timer"])
    _, failed = installed(run, ["systemctl", "list-units", "--failed", "--plain", "--no-legend"])
    names = [line.split()[0] for line in [*failed.splitlines(), *enabled.splitlines()] if line]
    names = [name for name in dict.fromkeys(names) if "@." not in name]
    if not names:
        return {}
    properties = "Id,Type,ActiveState,SubState,ConditionResult,TriggeredBy,Result,ExecMainStatus"
    _, shown = installed(run, ["systemctl", "show", f"--property={properties}", *names])
    found = {}
    for unit in parse(shown):
        state = unit.get("ActiveState", "")
        expected = unit.get("ConditionResult") == "yes" and not unit.get("TriggeredBy")
        expected = expected and unit.get("Type") not in ("oneshot", "idle")
        restarting = unit.get("SubState") == "auto-restart"
        if state == "failed" or restarting or (state == "inactive" and expected):
            result = unit.get("Result", "")
            reason = f" ({result})" if result not in ("", "success") else ""
            found[unit["Id"]] = ("restarting" if restarting else state) + reason
    return found


def read_metrics() -> list[tuple[str, dict[str, str], float]]:
    """Return the samples that the host's timers wrote: name, labels and value."""
    found = []
    for file in sorted(METRICS.glob("*.prom")):
        for name, labels, value in SAMPLE.findall(file.read_text()):
            found.append((name, dict(LABEL.findall(labels)), float(value)))
    return found


def by_labels(
    samples: list[tuple[str, dict[str, str], float]], prefix: str
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the samples whose names begin with a prefix, by the values of their labels."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, labels, value in samples:
        if name.startswith(prefix):
            entry = found.setdefault(tuple(labels.values()), dict(labels))
            entry[name.removeprefix(prefix)] = value
    return found


def certificates(samples: list[Any], now: float) -> list[dict[str, Any]]:
    """Return the certificates of the host's sites, with the days until they expire."""
    return [
        {
            "app": entry.get("app", ""),
            "days": int((entry.get("expiry_timestamp_seconds", 0) - now) // 86400),
            "failed": bool(entry.get("failed")),
            "fallback": bool(entry.get("is_fallback")),
        }
        for entry in by_labels(samples, "flaskstack_certificate_").values()
    ]


def backups(samples: list[Any], now: float) -> list[dict[str, Any]]:
    """Return the backup jobs of the host's apps.

    `age` is that of the last success in seconds (-1: there is none), and `max_age` its limit (0:
    none).
    """
    found = []
    for entry in by_labels(samples, "flaskstack_backup_").values():
        last = entry.get("last_success_timestamp_seconds", 0)
        age = int(now - last) if last else -1
        names = {name: entry.get(name, "") for name in ("app", "job")}
        limit = int(entry.get("max_age_seconds", 0))
        state = {"age": age, "max_age": limit, "failed": bool(entry.get("failed"))}
        found.append(names | state)
    return found


def disks(mounts: Path = Path("/proc/self/mounts")) -> list[dict[str, Any]]:
    """Return size (MiB) and use (%) of each file system, once per device."""
    found: dict[str, dict[str, Any]] = {}
    for line in mounts.read_text().splitlines():
        device, path, kind, options = line.split()[:4]
        if kind not in DISK_TYPES or device in found or "rw" not in options.split(","):
            continue
        path = path.encode().decode("unicode_escape")
        if not os.path.isdir(path):  # containers have mounted files
            continue
        try:
            state = os.statvfs(path)
        except OSError:
            continue
        used, inodes = state.f_blocks - state.f_bfree, state.f_files - state.f_ffree
        found[device] = {
            "path": path,
            "size": state.f_blocks * state.f_frsize // 2**20,
            "used": -(-100 * used // ((used + state.f_bavail) or 1)),  # as df does
            "inodes": -(-100 * inodes // (state.f_files or 1)),
        }
    return list(found.values())


def memory(run: Run) -> dict[str, Any]:
    """Return the host's memory, and of each service its memory and its limit by the plan, in MiB.

    Memory of a service is what its processes allocated, without file cache. The limit is 0 if there
    is none.
    """
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    sizes = {name: int(value.split()[0]) // 1024 for name, value in fields.items()}
    names = [*SERVERS, "redis-server@*.service", "*-web@*.service", "*-processes.slice"]
    show = ["systemctl", "show", "--property=Id,ControlGroup,MemoryMax,ActiveState,LoadState"]
    _, shown = installed(run, [*show, *names])
    services = []
    for unit in parse(shown):
        if unit.get("ActiveState") == "active" and unit.get("ControlGroup"):
            limit = unit.get("MemoryMax", "")
            limit = int(limit) // 2**20 if limit.isdecimal() else 0
            used = allocated(unit["ControlGroup"])
            services.append({"unit": unit["Id"], "used": used, "limit": limit})
    return {
        "total": sizes["MemTotal"],
        "available": sizes["MemAvailable"],
        "swap_used": sizes["SwapTotal"] - sizes["SwapFree"],
        "services": services,
    }


def allocated(group: str) -> int:
    """Return the MiB that the processes of a control group allocated."""
    size = 0
    for file in Path(f"/sys/fs/cgroup{group}").rglob("cgroup.procs"):
        for pid in file.read_text().split():
            try:
                text = Path("/proc", pid, "status").read_text()
            except OSError:
                continue  # the process has ended
            size += sum(map(int, re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", text, re.MULTILINE)))
    return size // 1024


def replication(run: Run) -> list[dict[str, Any]]:
    """Return the database's replication channels, if it is a replica: lag in seconds, running."""
    for client in ("mariadb", "mysql"):
        code, output = installed(run, [client, "--execute", r"SHOW REPLICA STATUS\G"])
        if code != 127:
            break
    found = []
    for text in re.split(r"^\*+.*$", output, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^\s*(\w+): ?(.*)$", text, re.MULTILINE))
        running = [value for name, value in fields.items() if re.search("_(IO|SQL)_Running$", name)]
        lag = next((value for name, value in fields.items() if "Seconds_Behind" in name), "")
        found.append(
            {
                "source": fields.get("Source_Host") or fields.get("Master_Host", ""),
                "running": bool(running) and set(running) == {"Yes"},
                "lag": int(lag) if lag.isdecimal() else -1,
            }
        )
    return found


def bans(run: Run) -> dict[str, int]:
    """Return the number of addresses that each jail of fail2ban bans."""
    code, output = installed(run, ["fail2ban-client", "banned"])
    if code:
        return {}
    jails = ast.literal_eval(output.strip() or "[]")
    return {name: len(banned) for jail in jails for name, banned in jail.items()}


def versions(run: Run) -> dict[str, str]:
    """Return the versions of the system and of the servers that are installed."""
    release = platform.freedesktop_os_release()
    found = {"system": f"{release.get('NAME', '')} {debian() or release.get('VERSION_ID', '')}"}
    found["kernel"] = platform.release()
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${Package}|${Version}\\n"]
    _, output = installed(run, [*query, *PACKAGES])
    for line in output.splitlines():
        status, package, version = line.split("|")
        if status.startswith("ii"):
            found[package] = re.sub(r"^\d+:", "", version)
    return found


def debian() -> str:
    """Return the point release of Debian, such as 13.2; empty on others."""
    try:
        return Path("/etc/debian_version").read_text().strip()
    except OSError:
        return ""


def updates(run: Run) -> dict[str, Any]:
    """Return how many packages have an update, and how many a security update.

    The numbers are -1 if apt failed. `lists` is the age of the package lists in seconds.
    """
    simulate = ["apt-get", "--simulate", "--option=Debug::NoLocking=true", "dist-upgrade"]
    code, output = installed(run, simulate, APT_TIMEOUT)
    lines = re.findall("^Inst .*$", output, re.MULTILINE)
    security = [line for line in lines if re.search("-security", line, re.IGNORECASE)]
    stamps = [Path("/var/lib/apt", name) for name in ("periodic/update-success-stamp", "lists")]
    age = next((int(time.time() - path.stat().st_mtime) for path in stamps if path.exists()), -1)
    return {
        "packages": -1 if code else len(lines),
        "security": -1 if code else len(security),
        "names": [line.split()[1] for line in security],
        "lists": age,
    }


def restarts(run: Run) -> list[str]:
    """Return what uses outdated files since an upgrade: services, and `reboot` for the kernel."""
    code, output = installed(run, ["needrestart", "-b"])
    found = re.findall(r"^NEEDRESTART-SVC: (\S+)", output, re.MULTILINE) if not code else []
    kernel = re.search(r"^NEEDRESTART-KSTA: [23]$", output, re.MULTILINE)
    if kernel or Path("/run/reboot-required").exists():
        found.insert(0, "reboot")
    return found


def site_errors(run: Run, app: str) -> int:
    """Return how many requests nginx answered with 5xx in the last minutes.

    They have a priority of their own in the journal, so that few lines are read.
    """
    journal = ["journalctl", f"--identifier=nginx_{app}", "--priority=err..err", "--output=cat"]
    journal += [f"--since=-{ERROR_MINUTES}min", "--quiet", "--no-pager"]
    _, output = installed(run, journal)
    return sum(line.startswith("{") and bool(ERROR.search(line)) for line in output.splitlines())


def failed_logins(run: Run) -> dict[str, int]:
    """Return failed SSH logins of the last day, and from how many addresses."""
    journal = ["journalctl", "--identifier=sshd", "--identifier=sshd-session", "--output=cat"]
    journal += [f"--since=-{LOGIN_HOURS}h", "--quiet", "--no-pager", f"--grep={FAILED_LOGIN}"]
    _, output = installed(run, journal)
    lines = output.splitlines()
    addresses = {address for line in lines for address in re.findall(r"(\S+) port \d+", line)}
    return {"attempts": len(lines), "addresses": len(addresses)}


# A value that needs an operator: percent, days, seconds, or MiB.
DISK_FULL, CERTIFICATE_DAYS, LISTS_AGE = 85, 7, 3 * 86400
LEAST_MEMORY, SERVICE_MEMORY, REPLICATION_LAG = 5, 90, 60
SITE_ERRORS = 10


def host_problems(status: dict[str, Any]) -> Iterator[str]:
    """Yield what an operator should look at, most urgent first."""
    if status.get("site_errors", 0) >= SITE_ERRORS:
        yield f"{status['site_errors']} requests failed with 5xx in {ERROR_MINUTES} minutes"
    for unit, state in status.get("units", {}).items():
        yield f"{unit} is {state}"
    for disk in status.get("disks", []):
        for kind in ("used", "inodes"):
            if disk[kind] >= DISK_FULL:
                what = "full" if kind == "used" else "out of inodes"
                yield f"{disk['path']} is {disk[kind]} % {what}"
    memory = status.get("memory")
    if memory and memory["available"] * 100 < memory["total"] * LEAST_MEMORY:
        yield f"only {memory['available']} of {memory['total']} MiB of memory are available"
    for service in memory["services"] if memory else []:
        if service["limit"] and service["used"] * 100 >= service["limit"] * SERVICE_MEMORY:
            yield f"{service['unit']} uses {service['used']} of {service['limit']} MiB"
    for channel in status.get("replication", []):
        if not channel["running"]:
            yield f"replication from {channel['source']} is stopped"
        elif channel["lag"] >= REPLICATION_LAG:
            yield f"replication from {channel['source']} is {channel['lag']} s behind"
    for backup in status.get("backups", []):
        limit = backup["max_age"] or float("inf")
        if backup["failed"] or not 0 <= backup["age"] < limit:
            yield f"backup of {backup['app']}, job {backup['job']}: {backup_text(backup)}"
    for certificate in status.get("certificates", []):
        if certificate["failed"] or certificate["days"] < CERTIFICATE_DAYS:
            failed = ", the last renewal failed" if certificate["failed"] else ""
            yield f"certificate of {certificate['app']}: {certificate['days']} days left{failed}"
    updates = status.get("updates", {})
    if updates.get("security", 0) > 0:
        yield f"{counted(updates['security'], 'security update')} pending"
    if updates.get("lists", 0) > LISTS_AGE:
        yield f"the package lists are {age(updates['lists'])} old"
    if "reboot" in status.get("restarts", []):
        yield "a reboot is pending"


def backup_text(backup: dict[str, Any]) -> str:
    """Return the age of a backup, and whether the last one failed."""
    text = age(backup["age"]) if backup["age"] >= 0 else "none yet"
    return f"{text}, failed" if backup["failed"] else text


def age(seconds: float) -> str:
    """Return a time span in its largest unit: 45 s, 12 min, 3 h or 5 d."""
    for size, unit in ((172800, "d"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{int(seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{int(seconds)} s"


def host_texts(status: dict[str, Any]) -> dict[str, str]:
    """Return the status of a host as short texts, for a table."""
    memory, logins = status["memory"], status["failed_logins"]
    return {
        "up": age(status["uptime"]),
        "5xx": str(status.get("site_errors", 0)),
        "units": ", ".join(f"{unit} {state}" for unit, state in status["units"].items()) or "ok",
        "memory": f"{memory['total'] - memory['available']}/{memory['total']} MiB",
        "of plan": plan_text(memory["services"]),
        "disk": " ".join(f"{disk['path']} {disk['used']}%" for disk in status["disks"]) or "-",
        "pending": pending_text(status["updates"]["security"], status["restarts"]),
        "certificate": ", ".join(f"{item['days']} d" for item in status["certificates"]) or "-",
        "backup": ", ".join(backup_text(one) for one in status["backups"] if one["job"] == "run")
        or "-",
        "replication": ", ".join(
            f"{item['lag']} s" if item["running"] else "stopped" for item in status["replication"]
        )
        or "-",
        "bans": str(sum(status["bans"].values())),
        "failed logins": "{attempts} from {addresses}".format(**logins),
    }


def plan_text(services: list[dict[str, Any]]) -> str:
    """Return the service that is nearest to its memory limit from the plan."""
    shares = [(100 * one["used"] // one["limit"], one["unit"]) for one in services if one["limit"]]
    share, unit = max(shares, default=(0, ""))
    return f"{unit.rpartition('.')[0]} {share}%" if unit else "-"


def pending_text(security: int, restarts: list[str]) -> str:
    """Return the security updates and restarts that are pending; `security` is -1 if unknown."""
    services = len([name for name in restarts if name != "reboot"])
    texts = ["updates unknown"] if security < 0 else []
    texts += [counted(security, "security update")] if security > 0 else []
    texts += ["reboot"] if "reboot" in restarts else []
    texts += [counted(services, "restart")] if services else []
    return ", ".join(texts) or "none"


def counted(number: int, word: str) -> str:
    """Return a number with its noun: 1 restart, 2 restarts."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def since_text(since: str, now: float) -> str:
    """Return when something began, and how long ago."""
    if not since:
        return "-"
    return f"{since} ({age(now - timegm(time.strptime(since, TIME)))})"
