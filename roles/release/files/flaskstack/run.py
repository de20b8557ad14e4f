"""Run a command like the app: as its user, in its sandbox, with a set of its settings."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from flaskstack.errors import DeployError, ValidationError
from flaskstack.hints import explained
from flaskstack.settings import Settings

SEARCH = "/usr/local/bin:/usr/bin:/bin"  # after the folders of the release
# A shell finds the command in the app's PATH; systemd-run would search its own.
FOUND = ("/bin/sh", "-c", 'exec "$@"', "sh")
# `gunicorn --check-config` imports the app but not the worker class.
CHECK = """
import os, sys
from gunicorn.app.wsgiapp import WSGIApplication
gunicorn = WSGIApplication()
gunicorn.cfg.worker_class
gunicorn.load()
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)  # otherwise threads that the app has started continue
"""
# Failures that the migration, which runs after the check, may fix.
NO_SCHEMA = re.compile(
    r"no such (table|column)|(Table|relation|column) .* (doesn't|does not) exist|Unknown column|"
    r"(CREATE|ALTER|INDEX|REFERENCES) command denied"
)
NUMBERS = itertools.count(1)


@contextmanager
def in_memory(text: str) -> Iterator[int]:
    """Yield the descriptor of an in-memory file readable only by root."""
    opened = os.memfd_create("flaskstack")
    try:
        os.fchmod(opened, 0o600)  # the database's tools ignore a world-writable file
        os.write(opened, text.encode())
        yield opened
    finally:
        os.close(opened)


def quoted(line: str) -> str:
    """Quote a line NAME=value for systemd's environment files."""
    name, _, value = line.partition("=")
    return f'{name}="' + re.sub(r'(["\\$`])', r"\\\1", value) + '"\n'


def properties(settings: Settings, name: str) -> list[str]:
    """Return systemd-run options for the sandbox of a set of settings.

    A drop-in in /etc would not work: systemd reads it after the options, so the active settings
    would override those of a new release.
    """
    text = (settings.sets / name / "commands.conf").read_text().replace("%%", "%")
    text = text.replace(f"{settings.etc}/current/", f"{settings.sets / name}/")
    lines = [line for line in text.splitlines() if "=" in line and line[0] not in "#;"]
    return [f"--property={line}" for line in lines]


def run(
    app: str,
    root: str | Path,
    command: Sequence[str],
    *,
    release: str = "",
    settings: str = "",
    environment: str = "",
    terminal: bool = False,
    pass_fds: Sequence[int] = (),
    stdout: IO[Any] | None = None,
    timeout: float = 0,
) -> int:
    """Run a command like the app, and return its exit code.

    Empty `release` and `settings` select the active ones. `environment` has more variables (lines
    NAME=value), which do not appear on a command line. The command uses the input and output of
    this process, which `terminal` marks as a terminal. With `stdout`, it writes there and has no
    input.
    `pass_fds` stay open until the command ends, even if this process ends first. The command is
    stopped after `timeout` seconds; 0 disables the timeout.

    Raises ValidationError when the release or its settings are not on this host.
    """
    folder = Path(root, "releases", release) if release else Path(root, "current")
    sets = Settings(app)
    settings = settings or sets.current()
    if not folder.is_dir() or not (sets.sets / settings / "commands.conf").is_file():
        missing = "settings" if folder.is_dir() else release or "a release"
        raise ValidationError(f"{app} has no {missing} on this host: flaskstack {app} releases")
    folder = folder.resolve()
    path = f"PATH={folder}/.venv/bin:{folder}/.site-packages/bin:{SEARCH}"
    variables = "".join(map(quoted, [path, *filter(None, environment.splitlines())]))
    with in_memory(variables) as more:
        systemd_run = [
            *("systemd-run", "--quiet", "--collect", "--wait", "--pty", "--pipe"),
            f"--unit={app}.run-{os.getpid()}-{next(NUMBERS)}.service",
            "--service-type=exec",
            f"--description=Command of {app}",
            f"--working-directory={folder}",
            *properties(sets, settings),
            f"--property=EnvironmentFile=-{folder}/.release.env",
            f"--property=EnvironmentFile=/proc/{os.getpid()}/fd/{more}",
            *([f"--property=RuntimeMaxSec={timeout:g}"] if timeout else []),
            "--",
            *(word.replace("$", "$$") for word in (*FOUND, *command)),  # systemd expands variables
        ]
        return subprocess.run(
            systemd_run,
            check=False,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL if stdout else None,
            stdout=stdout,
            stderr=subprocess.STDOUT if stdout else None,
            start_new_session=not terminal,  # it outlives the SSH connection
            # Only the command may change the terminal's colours and title.
            env=os.environ | {"SYSTEMD_TINT_BACKGROUND": "0", "SYSTEMD_ADJUST_TERMINAL_TITLE": "0"},
        ).returncode


def output_of(
    app: str, root: str | Path, command: Sequence[str], **options: Any
) -> tuple[int, str]:
    """Run a command as `run` does, and return its exit code and its output."""
    # Not a pipe: when this process ends first, a broken pipe would kill the command.
    with TemporaryFile("w+", errors="replace") as written:
        code = run(app, root, command, stdout=written, **options)
        written.seek(0)
        return code, written.read()


def check(params: dict[str, Any]) -> dict[str, Any]:
    """Import the app and the worker class like Gunicorn, with the new settings.

    `params` has `app`, `root`, `release` and `settings`. A failure is tolerated if the migration
    may fix it. Raises DeployError with the reason and the setting that fixes it.
    """
    app, sets = params["app"], Settings(params["app"])
    python = Path(params["root"], "releases", params["release"], ".venv/bin/python")
    configuration = sets.sets / params["settings"] / "gunicorn.conf.py"
    timeout, start = sets.release(params["settings"]).get("timeout", 0), time.monotonic()
    code, output = output_of(
        app,
        params["root"],
        [str(python), "-c", CHECK, "--config", str(configuration)],
        release=params["release"],
        settings=params["settings"],
        timeout=timeout,
    )
    if code and not NO_SCHEMA.search(output):
        if timeout and time.monotonic() - start > timeout:
            output += f"\nerror: the import did not end within {timeout} s"
        reason = f"{params['release']} was not activated, since Gunicorn cannot import it:\n"
        raise DeployError("Import the app", reason + explained(output))
    return {"changed": False}
