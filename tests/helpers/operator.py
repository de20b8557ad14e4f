"""Deploy versions of an app that differ in one line, as an operator."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.repository import ANSIBLE_PLAYBOOK, ROOT
from helpers.wait import wait_for

ANSI = re.compile(r"\x1b\[[0-9;]*m")
# An operator's environment, without Molecule's deprecation warnings and list of slow tasks.
ENVIRONMENT = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_CALLBACKS_ENABLED": "preload",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_NOCOLOR": "1",
}


@dataclass
class Done:
    """The result of a playbook."""

    code: int
    output: str

    @property
    def changed(self) -> int:
        """The number of changed tasks, on all hosts together."""
        return sum(map(int, re.findall(r" changed=(\d+) ", self.output)))

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.output.splitlines() if "WARNING]: " in line]

    def says(self, words: str) -> bool:
        """Return whether the output contains these words, ignoring line breaks and indentation."""
        return " ".join(words.split()) in " ".join(self.output.split())


@dataclass
class Operator:
    """Runs playbooks on the hosts of an inventory."""

    inventory: str

    def play(self, playbook: str, *options: str, **variables: Any) -> Done:
        """Run playbooks of playbooks/ by their names, or one by its path, and wait for the end."""
        running = self.start(playbook, *options, **variables)
        output = running.communicate()[0]
        return Done(running.returncode, ANSI.sub("", output))

    @contextmanager
    def playing(self, playbook: str, **variables: Any) -> Iterator[Callable[[], None]]:
        """Run a playbook in the background; yield a function that kills its local processes."""
        running = self.start(playbook, **variables)

        def end() -> None:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()

        try:
            yield end
        finally:
            end()
            running.communicate()

    def deploy(self, source: Path, *options: str, **variables: Any) -> Done:
        """Run playbooks/deploy.yml on the app in a directory."""
        return self.play("deploy", *options, app_source_folder=str(source), **variables)

    def cut(
        self, source: Path, task: str, moment: Callable[[], Any] | None = None, **variables: Any
    ) -> None:
        """Interrupt a deploy of the app in a directory; see `interrupt`."""
        self.interrupt("deploy", task, moment, app_source_folder=str(source), **variables)

    def interrupt(
        self,
        playbook: str,
        task: str,
        moment: Callable[[], Any] | None = None,
        *options: str,
        **variables: Any,
    ) -> None:
        """Kill a playbook's local processes once a task has started and `moment` is true.

        To a host this looks like a broken connection.
        """
        running = self.start(playbook, *options, **variables)
        assert running.stdout
        try:
            lines = []
            for line in running.stdout:
                lines.append(line)
                if task in line:
                    break
            assert task in lines[-1], "".join(lines)
            if moment:
                wait_for(moment, 60, every=0.05)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()

    def start(self, playbook: str, *options: str, **variables: Any) -> subprocess.Popen[str]:
        """Start a playbook in its own process group."""
        playbooks = [playbook]
        if not playbook.endswith(".yml"):
            playbooks = [f"playbooks/{name}.yml" for name in playbook.split()]
        command = [ANSIBLE_PLAYBOOK, "-i", self.inventory, *playbooks]
        return subprocess.Popen(
            [*command, "-e", json.dumps(variables), *options],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@dataclass
class Versions:
    """Copies of an app, each a different version."""

    app: Path
    folder: Path
    made: int = 0

    def __call__(self, file: str = "", old: str = "", new: str = "") -> Path:
        """Return the directory of a new version, with `new` instead of `old` in one file.

        Without `old` the file is replaced.
        """
        self.made += 1
        copy = self.folder / f"version{self.made}"
        shutil.copytree(self.app, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        (copy / "version.txt").write_text(f"{os.urandom(8).hex()}\n")
        if old:
            text = (copy / file).read_text()
            assert old in text, f"{file} has no {old!r}"
            new = text.replace(old, new, 1)
        if file:
            (copy / file).write_text(new)
        return copy
