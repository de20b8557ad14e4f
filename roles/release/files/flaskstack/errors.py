"""Errors that name the setting to change, and a wrapper to run other programs."""

from __future__ import annotations

import re
import subprocess
from typing import Any


class ValidationError(Exception):
    """A setting, or something that it refers to, is invalid."""

    def __init__(self, reason: str = "", example: str = "") -> None:
        """Take a reason that begins with the variable's name, and an example of a valid value."""
        super().__init__(reason)
        self.example = example

    def __str__(self) -> str:
        """Return the reason without the logins of URLs."""
        return without_logins(super().__str__())

    def advice(self, settings: str) -> str:
        """Return the reason, the file to change and an example line."""
        if not self.example:
            return str(self)
        gap = "\n" if "\n" in str(self) else " "
        return f"{self}{gap}Set it in {settings}, for example: {self.example}"


class DeployError(Exception):
    """A release failed. Attributes: step, reason, and optionally the unit and its answer."""

    def __init__(self, step: str, reason: str, unit: str = "", answer: str = "") -> None:
        """Store the parts of the message."""
        super().__init__(reason)
        self.step, self.reason, self.unit, self.answer = step, reason, unit, answer


def without_logins(text: str) -> str:
    """Remove user names and passwords from URLs."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def last_lines(text: str, number: int = 30) -> str:
    """Return the last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-number:])


def run(command: list[str], **options: Any) -> str:
    """Return a command's output. Raises ValidationError with its last lines when it fails."""
    options |= {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        result = subprocess.run(command, check=False, **options)
    except FileNotFoundError as error:
        raise ValidationError(f"{command[0]} is not installed on the controller") from error
    if result.returncode:
        failure = f"`{' '.join(command)}` failed with code {result.returncode}:"
        raise ValidationError(f"{failure}\n{last_lines(result.stdout + result.stderr)}")
    return result.stdout
