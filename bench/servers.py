"""Fresh local servers with their own inventories, for the benchmarks."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEYS = ROOT / ".local" / "ssh"
TIERS = ("edge", "app", "database", "cache", "queue")


class Server:
    """A fresh local server with all tiers and a copy of the sample app."""

    def __init__(
        self,
        name: str,
        folder: Path,
        port: int,
        http: int = 0,
        tree: Path = ROOT,
        **settings: object,
    ) -> None:
        """Write the inventory of the server bench-`name`, with SSH and the site at these ports.

        `tree` is the checkout with the site.yml, inventory and sample app to use; this checkout
        always creates the server. `settings` are more variables of the host.
        """
        self.name, self.port, self.inventory = f"bench-{name}", port, folder / name
        self.tree = tree
        (self.inventory / "group_vars").mkdir(parents=True)
        shutil.copytree(
            tree / "inventory" / "local" / "group_vars",
            self.inventory / "group_vars",
            dirs_exist_ok=True,
        )
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "deploy",
            "ansible_ssh_private_key_file": str(KEYS / "id_ed25519"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={KEYS / 'known_hosts'}",
            "local_server_ports": [f"127.0.0.1:{self.port}:22"]
            + ([f"127.0.0.1:{http}:80"] if http else []),
            "app_https": False,  # the load generator uses HTTP
        }
        host |= settings
        tiers = {tier: {"hosts": {self.name: None}} for tier in TIERS}
        inventory = {"all": {"hosts": {self.name: host}, "children": tiers}}
        (self.inventory / "hosts.yml").write_text(json.dumps(inventory))
        self.app = folder / f"app-{name}"
        shutil.copytree(
            tree / "sample_app", self.app, ignore=shutil.ignore_patterns(".*", "__pycache__")
        )

    def up(self) -> None:
        """Create the server."""
        self._playbook(ROOT, "playbooks/local_up.yml")

    def down(self) -> None:
        """Remove the server."""
        self._playbook(ROOT, "playbooks/local_down.yml")

    def play(self, playbook: str, *options: str, **streams: object) -> float:
        """Run a playbook of the server's tree; return the seconds it took."""
        return self._playbook(self.tree, playbook, *options, **streams)

    def _playbook(self, tree: Path, playbook: str, *options: str, **streams: object) -> float:
        app = f"app_source_folder={self.app}"
        command = ["ansible-playbook", "-i", self.inventory, playbook, "-e", app, *options]
        return timed(command, tree, **streams)

    def pack(self, archive: Path) -> None:
        """Pack the app into an archive."""
        subprocess.run(["tar", "-czf", archive, "-C", self.app, "."], check=True)

    def change(self) -> None:
        """Append a comment to the app's start page."""
        page = self.app / "sample_app" / "web" / "templates" / "index.html"
        page.write_text(page.read_text() + "\n<!-- another release -->\n")

    def ssh(self, command: str, **streams: object) -> float:
        """Run a command as root on this server; return the seconds it took."""
        options = {
            "UserKnownHostsFile": KEYS / "known_hosts",
            "IdentityFile": KEYS / "id_ed25519",
            "LogLevel": "ERROR",
        }
        login = [
            "ssh",
            "-F",
            "none",
            "-p",
            self.port,
            *(f"-o{name}={value}" for name, value in options.items()),
        ]
        return timed([*login, "deploy@127.0.0.1", f"sudo sh -c {shlex.quote(command)}"], **streams)

    def read(self, command: str) -> str:
        """Return the output of a command."""
        with tempfile.TemporaryFile("w+") as output:
            self.ssh(command, stdout=output)
            output.seek(0)
            return output.read()


def timed(command: list[object], tree: Path = ROOT, **streams: object) -> float:
    """Run a command with the tools of a tree; return the seconds it took.

    A failure ends the benchmark and shows the output.
    """
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(tree / "ansible.cfg"),
        "PATH": f"{tree / '.venv/bin'}:{os.environ['PATH']}",
    }
    started = time.monotonic()
    captured = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | streams
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        cwd=tree,
        env=environment,
        text=True,
        **captured,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return time.monotonic() - started
