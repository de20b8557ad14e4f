"""Say what is wrong in words for the person who set it, and run other programs so."""

from __future__ import annotations

import re
import subprocess
from typing import Any


class ValidationError(Exception):
    """What is wrong with a setting or with what it names."""

    def __init__(self, reason: str = "", example: str = "") -> None:
        """Take the reason, which begins with the variable's name, and a value that works."""
        super().__init__(reason)
        self.example = example

    def __str__(self) -> str:
        """Leave out what a URL carries to log in with."""
        return without_logins(super().__str__())

    def advice(self, settings: str) -> str:
        """Return all of it: the reason, the file to change and a line that works."""
        if not self.example:
            return str(self)
        gap = "\n" if "\n" in str(self) else " "
        return f"{self}{gap}Set it in {settings}, for example: {self.example}"


class DeployError(Exception):
    """A release is not well: the step, the reason, and of a unit its name and what it answered."""

    def __init__(self, step: str, reason: str, unit: str = "", answer: str = "") -> None:
        """Keep what the message to the operator is made of."""
        super().__init__(reason)
        self.step, self.reason, self.unit, self.answer = step, reason, unit, answer


def without_logins(text: str) -> str:
    """Leave out the user names and passwords of URLs."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def last_lines(text: str, number: int = 30) -> str:
    """Return the end of a program's output."""
    return "\n".join(text.strip().splitlines()[-number:])


def run(command: list[str], **options: Any) -> str:
    """Return a command's output, or refuse with the last of it."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
    except FileNotFoundError as error:
        raise ValidationError(f"{command[0]} is not installed on the controller") from error
    if done.returncode:
        output = last_lines(done.stdout + done.stderr)
        raise ValidationError(
            f"`{' '.join(command)}` failed with code {done.returncode}:\n{output}"
        )
    return done.stdout
