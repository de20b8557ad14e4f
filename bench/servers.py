"""Fresh local servers with their own inventories, for the benchmarks."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEYS = ROOT / ".local" / "ssh"
TIERS = ("edge", "app", "database", "cache", "queue")
# A manual deploy, the lower bound for any tool: nothing is built, checked, watched or rolled back.
BY_HAND = r"""
set -e
cd /srv/sample
new=releases/by-hand
old=$(basename "$(readlink web.sock)" .sock)
slot=$(echo "$old" | tr ab ba)
mkdir $new
tar --extract --directory=$new
ln -s "$(readlink current/.venv)" $new/.venv
$new/.venv/bin/python -m compileall -qq $new || true
mysqldump --single-transaction sample | gzip >/root/by-hand.sql.gz
flaskstack sample run --release by-hand alembic upgrade head 2>/dev/null
ln -sfn ../$new instances/$slot
ln -sfn "../settings/$(basename "$(readlink /etc/sample/current)")" /etc/sample/slots/$slot
systemctl start sample-web@$slot.socket sample-web@$slot.service
python3 -c "
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect('/run/sample/$slot.sock')
connection.send(b'GET /readyz HTTP/1.0\r\n\r\n')
assert b' 200 ' in connection.recv(99)
"
ln -sfn $new current
ln -sfn /run/sample/$slot.sock web.sock
systemctl restart 'sample-worker@*' 'sample-scheduler@*'
systemctl stop sample-web@$old.socket sample-web@$old.service
rm instances/$old /etc/sample/slots/$old
"""


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

        `tree` is the checkout that provides site.yml, the inventory and the sample app. The server
        itself is always created by this checkout. `settings` are additional host variables.
        """
        self.name, self.port, self.inventory = f"bench-{name}", port, folder / name
        self.tree, self.app = tree, folder / f"app-{name}"
        shutil.copytree(tree / "inventory/local/group_vars", self.inventory / "group_vars")
        ports = [f"127.0.0.1:{port}:22"] + ([f"127.0.0.1:{http}:80"] if http else [])
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "deploy",
            "ansible_ssh_private_key_file": str(KEYS / "id_ed25519"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={KEYS / 'known_hosts'}",
            "local_server_ports": ports,
            "app_https": False,  # the load generator uses HTTP
        }
        tiers = {tier: {"hosts": {self.name: None}} for tier in TIERS}
        inventory = {"all": {"hosts": {self.name: host | settings}, "children": tiers}}
        (self.inventory / "hosts.yml").write_text(json.dumps(inventory))
        ignored = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(tree / "sample_app", self.app, ignore=ignored)

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

    def change(self) -> None:
        """Append a comment to the app's start page."""
        page = self.app / "sample_app" / "web" / "templates" / "index.html"
        page.write_text(page.read_text() + "\n<!-- another release -->\n")

    def deploy(self) -> float:
        """Deploy changed code; return the seconds it took."""
        self.change()
        return self.play("playbooks/deploy.yml")

    def deploy_by_hand(self) -> float:
        """Deploy changed code manually; return the seconds it took."""
        self.change()
        return self._send_app(BY_HAND)

    def run_floor(self, packages: str) -> float:
        """Install the same services with a shell script; return the seconds it took."""
        script = (ROOT / "bench/floor.sh").read_text()
        return self._send_app(f"PACKAGES={shlex.quote(packages)} bash -c {shlex.quote(script)}")

    def _send_app(self, command: str) -> float:
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as packed:
                packed.add(self.app, ".")
            archive.seek(0)
            return self.ssh(command, stdin=archive)

    def ssh(self, command: str, **streams: object) -> float:
        """Run a command as root on this server; return the seconds it took."""
        login = ["ssh", "-F", "none", "-p", self.port, "-i", KEYS / "id_ed25519"]
        login += ["-o", f"UserKnownHostsFile={KEYS / 'known_hosts'}", "-o", "LogLevel=ERROR"]
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
    path = f"{tree / '.venv/bin'}:{os.environ['PATH']}"
    environment = os.environ | {"ANSIBLE_CONFIG": str(tree / "ansible.cfg"), "PATH": path}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | streams
    begin = time.monotonic()
    done = subprocess.run(
        list(map(str, command)), check=False, cwd=tree, env=environment, text=True, **options
    )
    if done.returncode:
        output = done.stdout
        if output is None and hasattr(options["stdout"], "seek"):  # a file of the caller
            options["stdout"].seek(0)
            output = options["stdout"].read()
        sys.exit(f"{output}\nfailed: {' '.join(map(str, command))}")
    return time.monotonic() - begin
