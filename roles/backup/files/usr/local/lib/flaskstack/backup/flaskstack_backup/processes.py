"""Run other programs, and copy dumps between them."""

from __future__ import annotations

import fcntl
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BLOCK = 1 << 20
DUMP_END = b"-- Dump completed"
RESTIC_INCOMPLETE = 3


class BackupError(Exception):
    """A failure that the operator reads in the journal and in the play."""


def run(*command: str, vanished: bool = False, **options: Any) -> str:
    """Run a command and return its output.

    With `vanished`, restic may miss files that were removed while it ran.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode == RESTIC_INCOMPLETE and vanished:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        if all(re.search('"Err":2[,}]|no such file|at least one', line) for line in errors):
            return done.stdout
    if done.returncode:
        reason = done.stderr.strip() or f"it ended with code {done.returncode}"
        raise BackupError(f"{Path(command[0]).name}: {reason}")
    return done.stdout


def pump(source: list[str], sink: list[str], first: bytes = b"", **env: Any) -> Any:
    """Copy a dump between two processes; return its head, when that came, its size, the output.

    The sink is killed before it sees the end of an incomplete dump, so that restic creates no
    snapshot of it.
    """
    done = SimpleNamespace(head=b"", at=0.0, size=0, output="")
    last = b""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    source_pipes = {"stdout": subprocess.PIPE, "env": env.get("source_env")}
    with (
        tempfile.TemporaryFile() as errors,
        ended(subprocess.Popen(source, stderr=errors, **source_pipes)) as reader,
        ended(subprocess.Popen(sink, env=env.get("sink_env"), **pipes)) as writer,
    ):
        with suppress(BrokenPipeError):
            writer.stdin.write(first)
            while block := reader.stdout.read(BLOCK):
                if not done.head:
                    done.head, done.at = block, time.time()
                writer.stdin.write(block)
                last = (last + block)[-200:]
                done.size += len(block)
            if reader.wait() or DUMP_END not in last:
                errors.seek(0)
                # A server that closes the connection during a pause leaves no message.
                reason = errors.read().decode(errors="replace").strip().split("\n")[-1]
                reason = reason or "is mysql_wait_timeout shorter than a pause of the upload?"
                raise BackupError(
                    f"{Path(source[0]).name} wrote an incomplete dump (code {reader.returncode}): "
                    f"{reason}"
                )
            writer.stdin.close()
        done.output = writer.stdout.read().decode()
        if writer.wait():
            raise BackupError(f"{Path(sink[0]).name} ended with code {writer.returncode}")
    return done


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process, and kill it in the end."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; wait for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
