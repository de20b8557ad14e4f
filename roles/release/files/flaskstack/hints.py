"""Find the reason of a failure in output or a journal, and the setting that fixes it.

The patterns match messages of Python packages. No library has such a list.
"""

from __future__ import annotations

import re

SHOWN = 12  # lines
TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'\s+File "([^"]+)", line \d+')
OF_OTHERS = re.compile(r"(site|dist)-packages/|/lib/python3|^<")
# Lines that Gunicorn adds after the reason.
NOISE = re.compile(
    r"\[(INFO|DEBUG)\]|Worker \(pid:\d+\) exited|was sent SIGTERM|HaltServer|^StopIteration$|"
    r"Shutting down: Master|Reason: (App|Worker) failed to"
)
AFTER = re.compile(r"$|\[\d{4}-|\]$|During handling of|The above exception|Traceback")
FAILED = re.compile(r"(?i)error: |fatal: |E: |npm err")
ERROR = re.compile(r"\b(ERROR|CRITICAL|FATAL|[Ee]rror:)")

# Each row: pattern, advice, example; the first match wins. The example may use groups of the
# pattern. Health answers begin with GET. If there is an exception, only its message, the app's last
# frame and health answers are searched.
INDEX = "app_index_url: https://pypi.org/simple"
COMPILER = "build-essential, python3-dev, pkg-config"
MEMORY = (
    r"Perhaps out of memory|oom-kill|OOM killer|MemoryError|Cannot allocate memory",
    "The app needs more memory than gunicorn_memory_limit, or its process than memory_limit. With "
    "the MiB that a worker needs in gunicorn_worker_memory, the plan has fewer workers",
    "gunicorn_worker_memory: 300",
)
# Rows that also apply to the journal of a healthy app.
RUNNING = [
    (
        r"ms-playwright|puppeteer[\s\S]*EACCES",
        "Downloaded programs do not run, such as a browser. Debian's own does",
        "app_packages: [chromium]",
    ),
    (
        r"No usable sandbox!|Zygote could not fork|memory for CodeRange|"
        r"Unable to allocate section memory|write\+execute memory",
        "The sandbox forbids compiling at run time. A browser also needs the options "
        "--headless --no-sandbox --no-zygote, as the unit is its sandbox",
        "gunicorn_sandbox_exceptions: "
        "{MemoryDenyWriteExecute: {value: false, reason: compiles at run time}}",
    ),
]
TABLE = [
    *RUNNING,
    (
        r"No such transport: unix|No module named 'unix'|unknown storage scheme : unix",
        "This library has no Unix sockets; the queue and the cache can have a port on loopback",
        "app_queue_host: 127.0.0.1, app_cache_host: 127.0.0.1",
    ),
    (
        r"celerybeat-schedule",
        "A release is read-only. Put Beat's schedule into the app's state folder",
        "app_processes: [{name: beat, command: celery -A shop beat -s /var/lib/shop/beat}]",
    ),
    (
        r"^GET \S+: 400",
        "The app rejects the health request. With TRUSTED_HOSTS, add the first of app_domains, "
        "which is its Host header",
        "app_domains: [shop.example.org]",
    ),
    (
        r"^GET \S+: (30\d|401|403|404|405)",
        "The health path must answer an anonymous GET with 200, without a redirect",
        "app_health_path: /healthz",
    ),
    (
        r"No module named '(pkg_resources|setuptools|distutils)\b",
        "Environments have no setuptools, and newer setuptools have no pkg_resources",
        'app_extra_requirements: ["setuptools<81"]',
    ),
    (
        r"(gevent|eventlet|tornado) worker requires",
        "gunicorn_worker_class needs a package that is not among the app's requirements",
        r"app_extra_requirements: [\1]",
    ),
    (
        r"gunicorn\.workers|invalid worker (uri|class)",
        "Gunicorn has no such worker class",
        "gunicorn_worker_class: gthread",
    ),
    (
        r"Failed to (find attribute|parse)|Application object must be callable|"
        r"\A(ModuleNotFound|Import)Error: No module named|but 2 were given",
        "app_wsgi must name a module of the release, and in it the app or a call that returns it",
        "app_wsgi: shop.web:create_app()",
    ),
    (
        r"No module named '(\w+)",
        "No requirement of the app has this module. Add its package to the file of "
        "app_requirements, or here",
        r"app_extra_requirements: [\1]",
    ),
    (
        r"directly inherits TypingOnly",
        "This SQLAlchemy is too old for the host's Python",
        'app_constraints: ["sqlalchemy>=2.0.31"]',
    ),
    (
        r"cannot import name .* from '(werkzeug|flask|jinja2|markupsafe|itsdangerous)\b",
        "The app, or an extension, needs an older version of this package",
        'app_constraints: ["werkzeug<3", "flask<3"]',
    ),
    (
        r"(?:ImportError|OSError): .*\blib[\w.+-]+: cannot open shared object",
        "A system library is missing: https://packages.debian.org finds the package of a file",
        "app_packages: [libgl1]",
    ),
    (
        r"environ[\s\S]*KeyError: '(\w+)'|validation errors? for \w+\n(\w+)\n +Field required",
        "The app needs an environment variable that is not set",
        r"app_environment: {\1\2: value}",
    ),
    (
        r"[(]1142,|(CREATE|ALTER|DROP|REFERENCES) command denied",
        "Only migrations may change tables, with an account of their own. If the app creates its "
        "tables at startup (create_all), flask routes starts it with that account",
        "app_migrate_commands: [flask routes]",
    ),
    (
        r"[(]1205,|Lock wait timeout exceeded",
        "Another transaction held the table or the row for longer, such as a report or a shell",
        "mysql_lock_wait_timeout: 60",
    ),
    (
        r"insufficient privileges to SHOW CREATE",
        "On another host, a routine can only be dumped with the account that created it. Create it "
        "again in a migration",
        "app_migrate_commands: [flask db upgrade]",
    ),
    (
        r"Access denied for user|password authentication failed|Unknown database|"
        r"database \"\S+\" does not exist|OperationalError.*[Cc]onnection refused|"
        r"Can't connect to (local )?(MySQL|server|MariaDB)|could not translate host name",
        "The database does not answer, or lacks this database, user or password. Those of the app "
        "are in DATABASE_URL. The folder secrets/ must be the one that site.yml used",
        'app_environment: {DB_URI: "{{ app_database_url }}"}',
    ),
    (
        r"^redis\.exceptions\.|Cannot connect to (redis|amqp)",
        "Redis does not answer at this address, or rejects this user",
        'app_environment: {REDIS_URL: "{{ app_cache_url }}"}',
    ),
    (
        r"(?:Permission denied|Read-only file system): '\S*/(?:releases/[^/']+|current)/([^/']+)",
        "A release is read-only. Shared folders keep what the app writes",
        r"app_shared_paths: [\1]",
    ),
    (
        r"(?:Permission denied|Read-only file system): "
        r"'(?!/(?:bin|boot|dev|etc|home|lib|proc|root|run|sys|tmp|usr)/)(/[^']+)/[^/']*'",
        "The app may write only to its own folders",
        r"app_writable_paths: [\1]",
    ),
    (
        r"unable to open database file|attempt to write a readonly database",
        "SQLite also writes beside its file, so the file must be in a shared folder",
        "app_shared_files: [data/shop.db]",
    ),
    (
        r"Hash mismatch|all requirements must have a hash|Hash-checking is required, but",
        "The lock is incomplete, or the index has another file than the lock. Lock again with "
        "`uv pip compile --generate-hashes` if you trust the index",
        "app_requirements: requirements.lock",
    ),
    (
        r"Git executable not found",
        "A requirement comes from a repository",
        "app_build_packages: [git]",
    ),
    (
        r"Because ([\w.-]+)==(\S+) has no (?:usable )?wheels",
        "This version has no wheel for the host's Python. Use one that has",
        r'app_constraints: ["\1>\2"]',
    ),
    (
        r"The build backend returned an error|Failed to build",
        "Each host compiles a package, and lacks a compiler or headers. mysqlclient also needs "
        "default-libmysqlclient-dev, and psycopg2 libpq-dev",
        f"app_build_packages: [{COMPILER}]",
    ),
    (
        r"invalid peer certificate",
        "The host does not trust the CA of the index",
        'app_index_ca: "{{ inventory_dir }}/index-ca.pem"',
    ),
    (
        r"lack of valid authentication credentials|returned a 40[13]|HTTP Error 40[13]",
        "The index requires user:password@ before its host name, or rejects those given",
        "app_index_url: https://packages.example.com/simple",
    ),
    (
        r"uv [0-9.]+ cannot be installed from|there is no version of|No solution found|"
        r"not found in the package registry|Failed to (fetch|download)",
        "The index does not answer this host, or lacks uv or a version of a requirement",
        INDEX,
    ),
    (
        r"WORKER TIMEOUT|start operation timed out|did not end within|^GET \S+: no answer",
        "The app needs longer to start",
        "release_health_timeout: 120",
    ),
    MEMORY,  # also matches a worker killed by a timeout, so it comes last
]


def decisive(lines: list[str]) -> list[str]:
    """Return the lines that explain a failure, about a dozen at most.

    These are, in order of preference: the last exception with the last frame of the app's code,
    an error message to its end, the last lines that mention errors, or the last lines.
    """
    if found := exception(lines):
        return found
    lines = [line.rstrip() for line in lines if line.strip() and not NOISE.search(line)]
    for start, line in enumerate(lines):
        if FAILED.match(line):
            rest = lines[start:]
            return rest if len(rest) <= SHOWN else [*rest[:4], "…", *rest[5 - SHOWN :]]
    lines = [line for line in lines if ERROR.search(line)] or lines
    return list(dict.fromkeys(lines))[-SHOWN:]


def exception(lines: list[str]) -> list[str]:
    """Return the last exception of a Python program; empty when there is none."""
    for start in reversed([index for index, line in enumerate(lines) if TRACEBACK in line]):
        end = start + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        # An indented traceback is part of another program's output.
        if lines[start].startswith(" ") or end == len(lines) or NOISE.search(lines[end]):
            continue
        _, _, message = lines[end].partition(": ")
        shown = [lines[end]]
        for line in lines[end + 1 : end + 6]:
            if AFTER.match(line) or (message and line.startswith(message)):
                break
            shown.append(line)
        return own_frame(lines[start + 1 : end]) + shown
    return []


def own_frame(lines: list[str]) -> list[str]:
    """Return the last frame of a traceback in the app's own code, with its source line."""
    for index in reversed(range(len(lines))):
        found = FRAME.match(lines[index])
        if found and not OF_OTHERS.search(found[1]):
            code = [line for line in lines[index + 1 : index + 2] if not FRAME.match(line)]
            return [lines[index].strip(), *(line.rstrip() for line in code)]
    return []


def advice(text: str, environment: str = "app_environment") -> str:
    """Return the fix for an output, a journal or an answer; empty when no row matches.

    `environment` is the variable that sets the environment of the failed command.
    """
    lines = text.splitlines()
    found = exception(lines)
    answers = [line for line in lines if line.startswith("GET ") and ": no answer" not in line]
    for pattern, cure, example in TABLE:
        for part in ["\n".join(found), *answers] if found else [text]:
            if match := re.search(pattern, part, re.MULTILINE):
                example = match.expand(example).replace("app_environment", environment)
                return f"{cure}, for example: {example}"
    return ""


def running_advice(journal: str) -> str:
    """Return the fix for problems in the journal of a healthy app; empty when no row matches."""
    found = [row for row in [*RUNNING, MEMORY] if re.search(row[0], journal)]
    return f"{found[0][1]}, for example: {found[0][2]}" if found else ""


def explained(output: str) -> str:
    """Return the decisive lines of an output, followed by the fix."""
    return "\n".join(filter(None, [*decisive(output.splitlines()), advice(output)]))
