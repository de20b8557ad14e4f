"""Faults that scenario `faults` injects under load, and what users may see of each.

A fault is a restart of the host, or a shell script that runs as root on the host, with the
functions of PRELUDE. Nothing but `end` undoes it: whatever the script kills must restart
automatically. Times are in seconds. 200 and 303 are the answers of a healthy site; `seen` has the
other outcomes that are allowed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from math import inf

import yaml

from helpers.load import PAGES, Answer
from helpers.repository import ROOT

REQUEST_TIMEOUT = 8  # request_timeout of the scenario
TIMEOUT = 20  # seconds until the load counts an answer as missing
HEALTHY = frozenset({"200", "303"})
BROKEN = frozenset({"502", "closed", "cut", "reset"})  # requests that a killed process was handling
DEGRADED = frozenset({"503"})
# Requests while the host restarts. Some runs have a few 404 within a second of the start, whose
# cause is not known.
GONE = frozenset({"refused", "timeout", "unreachable", "404"})
WEB = "sample-web@*"
PRELUDE = """
set -eu
web() { echo "sample-web@$(basename "$(readlink /srv/sample/web.sock)" .sock).service"; }
pid() { systemctl show --value --property MainPID "$1" | grep -v '^0$'; }
gunicorn_worker() { pgrep --parent "$(pid "$(web)")" | tail -n 1; }
hold() { systemd-run --quiet --collect --unit=fault -- "$@"; }
release() { systemctl stop fault.service 2>/dev/null || :; }
disk() { # NAME MIB DIRECTORY
    truncate --size="$2M" "/var/tmp/$1"; mkfs.ext4 -q -m 0 "/var/tmp/$1"
    mount -o loop "/var/tmp/$1" "$3"
    systemctl try-restart prometheus-node-exporter # services do not see new mounts in a container
}
"""
# The latest notes that still have no word count.
UNCOUNTED = """ids=$(mysql -NBe 'SELECT GROUP_CONCAT(id) FROM (SELECT id FROM sample.notes
    WHERE word_count IS NULL ORDER BY id DESC LIMIT 5) AS newest')"""
FILL_CACHE = """flaskstack sample run python -c '
import os, redis
cache = redis.from_url(os.environ["CACHE_URL"])
for number in range(cache.info("memory")["maxmemory"] // 50_000):
    cache.set(f"filler:{number}", os.urandom(100_000), ex=60)
'"""
TAKE_CONNECTIONS = """hold /usr/bin/python3 -c '
import pymysql, time
taken = []
try:
    while True:
        taken.append(pymysql.connect(unix_socket="/run/mysqld/mysqld.sock", user="root"))
except pymysql.OperationalError as error:
    print(len(taken), "connections, then:", error, flush=True)
time.sleep(60)
'"""
# The database's directory on a file system with 200 MiB of free space, and back.
SMALL_DISK = """place=/mnt/fault; data=/var/lib/mysql
systemctl stop mariadb; install -d $place
disk fault-mysql $(($(du -sm $data | cut -f1) + 230)) $place
cp -a $data/. $place; chown --reference=$data $place; mount --bind $place $data
systemctl start mariadb"""
USUAL_DISK = """place=/mnt/fault; data=/var/lib/mysql
systemctl stop mariadb; umount $data
find $data -mindepth 1 -delete; cp -a $place/. $data; umount $place; rm /var/tmp/fault-mysql
systemctl start mariadb"""
JOURNAL = '"/var/log/journal/$(cat /etc/machine-id)"'


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, how long it lasts, and the limits of what users see of it."""

    name: str
    needs: str = ""  # a script that fails on a host that cannot have this fault
    lacks: str = ""  # what such a host lacks
    prepare: str = ""  # before the fault, and not part of it
    clean_up: str = ""  # undoes `prepare`
    server: str = ""  # instead of `inject`: tasks of role local_server, which run on the controller
    inject: str = ""
    end: str = ""  # undoes what no server can recover from, such as a suspended process
    lasts: float = 3.0  # seconds until `end`
    seen: frozenset[str] = frozenset()
    failed: float = 0  # most failed requests
    outage: float = 0.0  # longest outage, as `longest_outage` counts it
    slowest: float = REQUEST_TIMEOUT + 1  # longest answer: no request hangs
    recovers: float = 40.0  # until all units run and a write succeeds
    path: str = ""  # requested during the fault, with the diagnostics key; the answer is a 503
    by: str  # what recovers the site
    log: str = ""  # pattern of a line that one of `units` logs
    units: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()  # of role monitoring: Name, or Name{label=pattern}
    skip: str = ""  # why the scenario cannot run it

    def __str__(self) -> str:
        return self.name


# Alert Rebooted cannot fire in a container, which has the boot time of its machine.
RESTART = {
    "seen": BROKEN | DEGRADED | GONE,
    "failed": inf,
    "outage": 60,
    "slowest": TIMEOUT + 1,
    "recovers": 60,
    "alerts": ("DatabaseRestarted", "RedisRestarted{redis=queue}"),
}
FAULTS = (
    Fault(
        name="RQ worker killed in the middle of a job",
        # The job waits for a locked row while it is killed. READ COMMITTED locks no gaps, so that
        # inserts continue.
        inject=f"""systemctl stop sample-worker@1.service; sleep 3; {UNCOUNTED}
            rows="SELECT id FROM sample.notes WHERE id IN ($ids) FOR UPDATE"
            level="SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
            hold mysql -e "$level; BEGIN; $rows; DO SLEEP(20)"
            systemctl start sample-worker@1.service; sleep 4
            systemctl kill --kill-whom=main --signal=KILL sample-worker@1.service""",
        end="release",
        by="systemd restarts the worker; RQ starts the abandoned job again",
        log="status=9/KILL",
        units=("sample-worker@1",),
        alerts=("UnitRestarted{name=sample-worker@1.service}",),
    ),
    Fault(
        name="RQ worker hangs",
        inject='kill -STOP "$(pid sample-worker@1.service)"',
        lasts=11,  # `watchdog` is 10 in this scenario
        by="the watchdog of systemd restarts the worker",
        log="Watchdog timeout",
        units=("sample-worker@1",),
        alerts=("UnitRestarted{name=sample-worker@1.service}",),
    ),
    Fault(
        name="Scheduler killed",
        inject="systemctl kill --kill-whom=main --signal=KILL sample-scheduler@1.service",
        lasts=6,
        by="systemd restarts the scheduler",
        log="status=9/KILL",
        units=("sample-scheduler@1",),
        alerts=("UnitRestarted{name=sample-scheduler@1.service}",),
    ),
    Fault(
        name="Gunicorn worker killed",
        inject='kill -KILL "$(gunicorn_worker)"',
        seen=BROKEN,
        failed=8,
        outage=1,
        by="Gunicorn starts another worker; only requests in progress fail",
        log="was sent SIGKILL",
        units=(WEB,),
    ),
    Fault(
        name="Gunicorn worker hangs",
        inject='kill -STOP "$(gunicorn_worker)"',
        lasts=REQUEST_TIMEOUT + 6,
        seen=BROKEN | {"504"},
        failed=8,
        outage=1,
        slowest=2 * REQUEST_TIMEOUT,
        by="Gunicorn kills the worker after gunicorn_timeout and starts another",
        log="WORKER TIMEOUT",
        units=(WEB,),
    ),
    Fault(
        name="Gunicorn master killed",
        inject='systemctl kill --kill-whom=main --signal=KILL "$(web)"',
        seen=BROKEN | {"504"},
        failed=16,
        outage=1,
        slowest=2 * REQUEST_TIMEOUT,  # requests wait for the restart
        by="systemd restarts Gunicorn; its socket holds new requests",
        log="status=9/KILL",
        units=(WEB,),
        alerts=("UnitRestarted{name=sample-web@*}",),
    ),
    Fault(
        name="Gunicorn master hangs",
        inject='kill -STOP "$(pid "$(web)")"',
        lasts=16,  # gunicorn_watchdog is 10 in this scenario
        seen=BROKEN | {"504"},
        failed=16,
        outage=1,
        slowest=2 * REQUEST_TIMEOUT,  # requests wait for the restart
        by="the watchdog of systemd restarts Gunicorn; until then the workers answer",
        log="Watchdog timeout",
        units=(WEB,),
        alerts=("UnitRestarted{name=sample-web@*}",),
    ),
    Fault(
        name="nginx master killed",
        inject="systemctl kill --kill-whom=main --signal=KILL nginx.service",
        seen=BROKEN | {"refused"},
        failed=inf,
        outage=6,
        by="systemd restarts nginx",
        log="status=9/KILL",
        units=("nginx",),
        alerts=("UnitRestarted{name=nginx.service}",),
    ),
    Fault(
        name="MySQL restarted",
        inject="systemctl restart mariadb.service",
        seen=DEGRADED,
        failed=inf,
        outage=10,
        by="the app connects again",
        log="ready for connections",
        units=("mariadb",),
        alerts=("DatabaseRestarted",),
    ),
    Fault(
        name="MySQL killed",
        inject="systemctl kill --kill-whom=main --signal=KILL mariadb.service",
        seen=DEGRADED,
        failed=inf,
        outage=15,
        by="systemd restarts the server, which recovers its tables; the app connects again",
        log="status=9/KILL",
        units=("mariadb",),
        alerts=("DatabaseRestarted", "UnitRestarted{name=mariadb.service}"),
    ),
    Fault(
        name="All database connections killed",
        inject="mysql -e 'KILL USER sample; KILL USER sample_jobs'",
        by="transactions are repeated on new connections",
    ),
    Fault(
        name="Database connections idle past wait_timeout",
        inject="""mysql -NBe 'SELECT @@GLOBAL.wait_timeout' >/run/fault-wait
            mysql -e 'SET GLOBAL wait_timeout = 1; KILL USER sample; KILL USER sample_jobs'""",
        end="""mysql -e "SET GLOBAL wait_timeout = $(cat /run/fault-wait)"
            mysql -e 'KILL USER sample; KILL USER sample_jobs'""",
        lasts=6,
        by="the pool tests each connection before use",
    ),
    Fault(
        name="Statement beyond the limit",
        inject=":",
        path="/slow?seconds=60",
        by="the database stops the statement",
        log="statement_timeout",
        units=(WEB,),
    ),
    Fault(
        name="Lock held longer than the lock wait",
        inject="hold mysql -e 'BEGIN; SELECT id FROM sample.notes FOR UPDATE; DO SLEEP(60)'",
        end="release",
        lasts=8,
        seen=DEGRADED,
        failed=inf,
        outage=6,
        by="writes give up before the request does; further ones get a 503 at once",
        alerts=("DatabaseLocks", "SiteErrors"),
    ),
    Fault(
        name="Migration waits for a metadata lock",
        inject="""hold mysql -e 'BEGIN; SELECT 1 FROM sample.notes LIMIT 1; DO SLEEP(60)'; sleep 1
            if mysql -e 'ALTER TABLE sample.notes ADD COLUMN fault INT'; then exit 1; fi""",
        end="release",
        lasts=1,
        slowest=5,  # readers wait behind the migration for mysql_lock_wait_timeout
        by="the migration gives up after mysql_lock_wait_timeout; readers wait just as long",
    ),
    Fault(
        name="All database connections taken by others",
        inject=TAKE_CONNECTIONS,
        end="release",
        lasts=6,
        seen=DEGRADED,
        failed=inf,
        outage=6,
        by="pooled connections keep working",
        alerts=("DatabaseConnections",),
    ),
    Fault(
        name="Network of the database cut off",
        inject="""nft 'add table inet fault
            add chain inet fault cut { type filter hook output priority 0; }
            add rule inet fault cut tcp dport 3306 drop'""",
        end="nft delete table inet fault",
        lasts=15,
        seen=DEGRADED | {"504"},
        failed=inf,
        outage=25,
        slowest=2 * REQUEST_TIMEOUT,
        by="connections time out; then the app answers 503 at once, and tries every 2 seconds",
        log="database_timeout",
        units=(WEB,),
        alerts=("SiteErrors",),
    ),
    Fault(
        name="Network of the database slow",
        needs="tc qdisc add dev lo root netem delay 1ms; tc qdisc del dev lo root",
        lacks="not tried: the kernel of this machine lacks netem",
        inject="tc qdisc add dev lo root netem delay 20ms",
        end="tc qdisc del dev lo root",
        lasts=6,
        by="pages take longer",
    ),
    Fault(
        name="Redis cache stopped",
        inject="systemctl stop redis-server@sample-cache.service",
        end="systemctl start redis-server@sample-cache.service",
        lasts=6,
        by="pages lack the values of the cache",
        log="cache failed",
        units=(WEB,),
        alerts=("RedisDown{redis=cache}",),
    ),
    Fault(
        name="Redis cache killed",
        inject="systemctl kill --kill-whom=main --signal=KILL redis-server@sample-cache.service",
        by="systemd restarts it, empty",
        log="status=9/KILL",
        units=("redis-server@sample-cache",),
        alerts=("RedisRestarted{redis=cache}",),
    ),
    Fault(
        name="Redis cache hangs",
        inject='kill -STOP "$(pid redis-server@sample-cache.service)"',
        end='kill -CONT "$(pid redis-server@sample-cache.service)"',
        lasts=8,
        slowest=3,
        by="short timeouts and a circuit breaker",
        log="cache failed",
        units=(WEB,),
        alerts=("RedisDown{redis=cache}",),
    ),
    Fault(
        name="Redis cache full",
        inject=FILL_CACHE,
        by="the cache evicts old values; the queue is another instance",
    ),
    Fault(
        name="Redis queue killed after it acknowledged jobs",
        inject="systemctl kill --kill-whom=main --signal=KILL redis-server@sample-queue.service",
        by="systemd restarts it with its append-only file",
        log="status=9/KILL",
        units=("redis-server@sample-queue",),
        alerts=("RedisRestarted{redis=queue}",),
    ),
    Fault(
        name="Redis queue hangs",
        inject='kill -STOP "$(pid redis-server@sample-queue.service)"',
        end='kill -CONT "$(pid redis-server@sample-queue.service)"',
        lasts=8,
        slowest=3,
        by="notes are saved; the scheduler queues their jobs later",
        log="queue failed",
        units=(WEB,),
        alerts=("RedisDown{redis=queue}",),
    ),
    Fault(
        name="Redis queue's append-only file truncated",
        inject="""unit=redis-server@sample-queue.service; systemctl stop $unit
            truncate --size=-7 "$(find /var/lib/redis/sample-queue -name '*.incr.aof' | tail -n 1)"
            systemctl start $unit""",
        by="Redis drops the incomplete last command; the scheduler queues that job again",
        log="(?i)truncating",
        units=("redis-server@sample-queue",),
        alerts=("RedisRestarted{redis=queue}",),
    ),
    Fault(
        name="Disk of the database full",
        prepare=SMALL_DISK,
        clean_up=USUAL_DISK,
        inject="dd if=/dev/zero of=/var/lib/mysql/fault bs=64K 2>/dev/null || :",
        end="rm /var/lib/mysql/fault",
        lasts=12,
        seen=DEGRADED | {"504"},  # waiting writes take all threads
        failed=inf,
        outage=90,  # of writes
        slowest=2 * REQUEST_TIMEOUT,
        recovers=90,  # MariaDB checks for space once per minute
        by="after the first timeouts, the app answers writes with 503 at once and reads continue",
        log="(?i)disk.* full|no space",
        units=("mariadb",),
        alerts=("DiskFull",),
    ),
    Fault(
        name="Disk of the logs full",
        inject=f"""disk fault-journal 16 {JOURNAL}; systemctl restart systemd-journald
            dd if=/dev/zero of={JOURNAL}/fault bs=64K 2>/dev/null || :""",
        end=f"""umount --lazy {JOURNAL}; systemctl restart systemd-journald
            rm /var/tmp/fault-journal""",
        lasts=6,
        by="messages are dropped; nothing waits for a log",
        alerts=("DiskFull",),
    ),
    Fault(
        name="App's memory limit reached",
        by="the kernel kills a Gunicorn worker, which Gunicorn replaces",
        alerts=("OutOfMemory",),
        skip="not tried: needs the memory controller of cgroups, which containers here lack",
    ),
    Fault(
        name="Host's memory exhausted",
        by="the kernel kills the app's processes first, the database last",
        alerts=("MemoryLow", "OutOfMemory"),
        skip="not tried: would take the memory of the machine that runs the test",
    ),
    Fault(
        name="Clock jumps forwards and back",
        by="timeouts use the monotonic clock; the scheduler drops ticks of the future",
        alerts=("ClockWrong",),
        skip="a container has the clock of its machine, and libfaketime breaks Python's sleep; "
        "sample_app/tests/test_scheduler sets back the clock of the database",
    ),
    Fault(
        name="Host rebooted",
        server="restart",
        by="all units start in order",
        **RESTART,
    ),
    Fault(
        name="Power cut",
        server="power_cut",
        by="all units start in order; database and queue recover their files",
        **RESTART,
    ),
)


@dataclass(frozen=True)
class Measured:
    """What users saw of a fault. Times in seconds."""

    fault: Fault
    outcomes: Counter[str]
    failed: int
    outage: float
    slowest: float
    recovered: float
    logged: str  # the first line that matches, or ""
    answer: str = ""  # the status of `path`

    @property
    def problems(self) -> list[str]:
        """The limits of the fault that were exceeded."""
        fault = self.fault
        other = sorted(self.outcomes.keys() - HEALTHY - fault.seen)
        limits = {
            f"outcomes {other}": not other,
            f"{self.failed} requests failed": self.failed <= fault.failed,
            f"an outage of {self.outage:.1f} s": self.outage <= fault.outage,
            f"an answer took {self.slowest:.1f} s": self.slowest <= fault.slowest,
            f"nothing logged {fault.log!r}": not fault.log or self.logged,
            f"{fault.path} answered {self.answer}": not fault.path or self.answer == "503",
        }
        return [text for text, ok in limits.items() if not ok]


def longest_outage(answers: Iterable[Answer]) -> float:
    """Return the longest time from a failed request to the next one of its kind that succeeds.

    There are two kinds: requests that need the database, and others.
    """
    kinds: dict[bool, list[Answer]] = {True: [], False: []}
    for answer in answers:
        kinds[answer.method == "POST" or PAGES[answer.number % len(PAGES)] == "/"].append(answer)
    return max(map(_longest_outage, kinds.values()))


def _longest_outage(answers: list[Answer]) -> float:
    ordered = sorted(answers, key=lambda answer: answer.start)
    longest, position = 0.0, 0
    for failed, group in groupby(ordered, key=lambda answer: answer.failed):
        size = len(list(group))
        if failed:
            after = ordered[min(position + size, len(ordered) - 1)]
            longest = max(longest, after.start - ordered[position].start)
        position += size
    return longest


def measure(
    fault: Fault, answers: list[Answer], recovered: float, logged: str, answer: str = ""
) -> Measured:
    """Return what users saw, from the answers to all requests due during the fault."""
    return Measured(
        fault,
        Counter(answer.outcome for answer in answers),
        sum(answer.failed for answer in answers),
        longest_outage(answers),
        max((answer.latency for answer in answers), default=0.0),
        recovered,
        logged,
        answer,
    )


COLUMNS = (
    *("Fault", "Failed requests", "Longest outage", "Slowest answer", "Recovered after"),
    *("Recovery", "Logged", "Alert"),
)
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(
        (ROOT / "roles/monitoring/files/etc/flaskstack/monitoring/rules.yml").read_text()
    )["groups"]
    for rule in group["rules"]
}


def table(results: Iterable[Measured]) -> str:
    """Return the table of docs/faults.md; faults without a result are marked."""
    measured = {result.fault.name: result for result in results}
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    rows += [_cells(fault, measured.get(fault.name)) for fault in FAULTS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(fault: Fault, result: Measured | None) -> list[str]:
    alerts = ", ".join(map(_alert, fault.alerts)) or "none"
    if result is None:
        reason = fault.skip or fault.lacks or "not measured yet"
        return [fault.name, reason, *[""] * 3, fault.by, "", alerts]
    failed = Counter(result.outcomes)
    for name in HEALTHY:
        del failed[name]
    kinds = ", ".join(f"{name}: {number}" for name, number in sorted(failed.items()))
    seen = f"{result.failed} of {result.outcomes.total()}" + (f" ({kinds})" if kinds else "")
    times = (result.outage, result.slowest, result.recovered)
    found = re.search(fault.log, result.logged) if fault.log else None
    logged = f"`{found[0]}`" if found else ""
    return [fault.name, seen, *(f"{time:.1f} s" for time in times), fault.by, logged, alerts]


def _alert(selector: str) -> str:
    """Return the name of an alert, and how long the fault has to last before it is sent."""
    name = selector.partition("{")[0]
    return name + (f" after {RULES[name]['for']}" if "for" in RULES[name] else "")
