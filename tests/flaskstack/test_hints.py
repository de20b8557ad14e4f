"""Extract the decisive lines of program output, with fewer frames, and give matching advice."""

from __future__ import annotations

import pytest

from flaskstack import build
from flaskstack.hints import COMPILER, advice, decisive, running_advice

LIBRARY = "/srv/shop/environments/4f1b-python3.13/lib/python3.13/site-packages"
APP = "/srv/shop/releases/20261129-5d6f/shop/web.py"
# Output of Gunicorn 27 when a worker cannot import the app: the reason is in the middle.
JOURNAL = f"""\
[2026-11-29 22:10:48 +0000] [2028] [INFO] Starting gunicorn 27.0.1
[2026-11-29 22:10:48 +0000] [2029] [ERROR] Exception in worker process
Traceback (most recent call last):
  File "{LIBRARY}/gunicorn/arbiter.py", line 805, in spawn_worker
    worker.init_process()
  File "{LIBRARY}/gunicorn/util.py", line 473, in import_app
    app = app(*args, **kwargs)
          ^^^^^^^^^^^^^^^^^^^^
FRAMESEXCEPTION
[2026-11-29 22:10:48 +0000] [2030] [INFO] Worker exiting (pid: 2030)
[2026-11-29 22:10:48 +0000] [2028] [ERROR] Worker (pid:2029) exited with code 3.
Traceback (most recent call last):
  File "{LIBRARY}/gunicorn/arbiter.py", line 270, in run
    handler()
gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "{LIBRARY}/gunicorn/arbiter.py", line 683, in reap_workers
    raise HaltServer(reason, self.WORKER_BOOT_ERROR)
gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>
"""
REFUSED = (
    "sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (2003, \"Can't connect to "
    "MySQL server on '127.0.0.1' ([Errno 111] Connection refused)\")"
)
NO_ATTRIBUTE = """\
[2026-11-29 22:10:50 +0000] [2089] [INFO] Booting worker with pid: 2089
Failed to find attribute 'nope' in 'shop'.
[2026-11-29 22:10:50 +0000] [2089] [INFO] Worker exiting (pid: 2089)
Failed to find attribute 'nope' in 'shop'.
[2026-11-29 22:10:50 +0000] [2088] [ERROR] Worker (pid:2089) exited with code 4.
[2026-11-29 22:10:50 +0000] [2088] [ERROR] Shutting down: Master
[2026-11-29 22:10:50 +0000] [2088] [ERROR] Reason: App failed to load.
"""
NOT_BUILT = f"""\
Resolved 1 package in 108ms
   Building greenlet==3.1.1
error: Failed to build `greenlet==3.1.1`
  cause: The build backend returned an error

         [stdout]
{chr(10).join(f"         copying src/{number}.h -> build" for number in range(40))}
         Traceback (most recent call last):
           File "<string>", line 14, in <module>
         error: [Errno 2] No such file or directory: 'g++'

hint: Build failures usually indicate a problem with the package or the build environment
"""


def journal(exception, code=""):
    frames = f'  File "{APP}", line 3, in create_app\n    {code}\n' if code else ""
    more = f'  File "{LIBRARY}/other.py", line 9, in other\n    raise error\n'
    # Gunicorn repeats the exception's message.
    exception += "\n" + exception.partition(": ")[2]
    return JOURNAL.replace("FRAMES", frames + more).replace("EXCEPTION", exception)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            journal("KeyError: 'KEY'", 'KEY = os.environ["KEY"]'),
            [
                f'File "{APP}", line 3, in create_app',
                '    KEY = os.environ["KEY"]',
                "KeyError: 'KEY'",
            ],
        ),
        (journal(f"{REFUSED}\n(Background)"), [REFUSED, "(Background)"]),
        (NO_ATTRIBUTE, ["Failed to find attribute 'nope' in 'shop'."]),
        ("INFO [alembic] x\nERROR [flask_migrate] Error: no revision 1\n", None),
        ("one\ntwo\n", ["one", "two"]),
        ("", []),
    ],
)
def test_decisive_lines(text, lines):
    assert decisive(text.splitlines()) == (text.splitlines()[1:] if lines is None else lines)


def test_a_long_error_keeps_both_ends():
    lines = decisive(NOT_BUILT.splitlines())
    assert lines[0] == "error: Failed to build `greenlet==3.1.1`"
    assert lines[-2].endswith("'g++'")
    assert len(lines) == 12


# The start of the suggested setting, the app's source line if any, and the exception.
EXCEPTIONS = """
app_extra_requirements: ["setu | import x | ModuleNotFoundError: No module named 'pkg_resources'
app_extra_requirements: [redis | import x | ModuleNotFoundError: No module named 'redis'
app_wsgi: shop.web:create_app( | | ModuleNotFoundError: No module named 'shop'
app_extra_requirements: [gevent| | RuntimeError: gevent worker requires gevent 24.10.1 or higher
gunicorn_worker_class: | | ImportError: Entry point ('gunicorn.workers', 'gthred') not found
app_environment: {KEY: value} | os.environ["KEY"] | KeyError: 'KEY'
| config["KEY"] | KeyError: 'KEY'
app_environment: {REDIS_URL | | redis.exceptions.ConnectionError: Error 111 connecting to x:6379.
| | ValueError: redis.exceptions are no hint
app_environment: {DB_URI | | x.OperationalError: (2003, "Can't connect to MySQL server on 'x'")
app_environment: {DB_URI | | x.OperationalError: (1049, "Unknown database 'x'")
mysql_lock_wait_timeout: | | x.OperationalError: (1205, "Lock wait timeout exceeded; try again")
app_migrate_commands: | | x.OperationalError: (1142, "CREATE command denied to user")
app_queue_host: 127.0.0.1 | | KeyError: 'No such transport: unix'
app_processes: [{name: beat | | _gdbm.error: [Errno 30] Read-only file system: 'celerybeat-schedule'
app_constraints: ["sqlalchemy | | AssertionError: Class 'x' directly inherits TypingOnly but has
app_constraints: ["werkzeug<3 | | ImportError: cannot import name 'url_quote' from 'werkzeug.urls'
| | ImportError: cannot import name 'x' from 'shop.web' (/x)
app_packages: [libgl1] | | ImportError: libGL.so.1: cannot open shared object file: No such file
app_shared_paths: [var | | OSError: [Errno 30] Read-only file system: '/srv/a/releases/1/var/a'
app_writable_paths: [/data/x] | | PermissionError: [Errno 13] Permission denied: '/data/x/a.txt'
| | PermissionError: [Errno 13] Permission denied: '/etc/shadow'
app_shared_files: | | sqlite3.OperationalError: unable to open database file
"""
OUTPUTS = """
app_health_path: /healthz | GET /healthz: 302 FOUND to /login (expected is 200)
app_domains: [shop.example.org] | GET /healthz: 400 BAD REQUEST (expected is 200)
app_health_path: /healthz | GET /: 404 NOT FOUND (expected is 200)
release_health_timeout: 120 | GET /healthz: no answer
| GET /healthz: 500 INTERNAL SERVER ERROR (expected is 200)
release_health_timeout: 120 | [7] [CRITICAL] WORKER TIMEOUT (pid:8)
gunicorn_sandbox_exceptions: {M | x.cc:130] No usable sandbox! If this is a Debian system, please
gunicorn_sandbox_exceptions: {M | V8 process OOM (Failed to reserve virtual memory for CodeRange).
app_packages: [chromium] | [Errno 13] Permission denied: '/var/lib/x/.cache/ms-playwright/chrome'
app_packages: [libgl1] | OSError: cannot load library 'libx': libx: cannot open shared object file
gunicorn_worker_memory: | [ERROR] Worker (pid:8) was sent SIGKILL! Perhaps out of memory?
gunicorn_worker_memory: | shop-worker@1.service: Failed with result 'oom-kill'.
app_constraints: ["numpy>1.21.6"] | cause: Because numpy==1.21.6 has no usable wheels and you
app_build_packages: [git] | cause: Git executable not found. Ensure that Git is installed and
app_index_url: https://pypi | uv 0.13.8 cannot be installed from https://x/simple: it was not found
| ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] of another service
| all is well
"""


def cases(text):
    return [[part.strip(" ") for part in line.split("|")] for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        *((journal(exception, code), setting) for setting, code, exception in cases(EXCEPTIONS)),
        *((output, setting) for setting, output in cases(OUTPUTS)),
        (NO_ATTRIBUTE, "app_wsgi: shop.web:create_app()"),
        (NOT_BUILT, f"app_build_packages: [{COMPILER}]"),
        # An app that crashed does not answer, and the cause of the crash is known.
        ("GET /: no answer\n" + journal("ValueError: 1", "x"), ""),
    ],
)
def test_advice_matches_the_error(text, setting):
    found = advice(text)
    assert found.partition(", for example: ")[2].startswith(setting)
    assert bool(found) is bool(setting)


def test_a_failed_build_command_suggests_the_build_environment():
    text = journal("KeyError: 'KEY'", 'os.environ["KEY"]')
    assert advice(text, "app_build_environment").endswith("app_build_environment: {KEY: value}")
    assert "app_build_environment: {SECRET_KEY: " in build.advise(text)
    assert "app_build_hosts: [registry.npmjs.org, " in build.advise("npm error code ENOTFOUND")
    assert "app_build_packages: " in build.advise(NOT_BUILT)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("Worker (pid:8) was sent SIGKILL! Perhaps out of memory?", "gunicorn_worker_memory"),
        ("ERROR: Zygote could not fork: process_type", "gunicorn_sandbox_exceptions"),
        ("KeyError: 'KEY'", ""),  # in a request, so no setting is missing
    ],
)
def test_only_some_problems_of_a_running_app_are_reported(text, setting):
    assert running_advice(text).partition(", for example: ")[2].startswith(setting)
    assert bool(running_advice(text)) is bool(setting)
