"""Run an app's build commands on a host, apart from all that is secret or in use there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from flaskstack.uv import (
    OPTIONS,
    SETTINGS,
    Index,
    index_settings,
    install_uv,
    system_certificates,
)
from flaskstack.errors import RefusedError, last_lines

DOCUMENTATION = """
module: run_build
short_description: Run an app's build commands on a host
description:
  - Unpacks a release into a folder of its own, runs the commands there, and packs what came out.
  - A user that exists only meanwhile runs them. It may write to that folder alone, which keeps its
    home, and with that the caches of programs such as npm, for the next time.
author: Flaskstack
"""
WANTED: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "archive": {"type": "path", "required": True},  # the release as it is shipped to be built
    "dest": {"type": "path", "required": True},  # what came out, as an archive
    "venv": {"type": "path", "required": True},  # environment of the release
    "release": {"type": "path", "required": True},  # folder that the release will have
    "commands": {"type": "list", "elements": "str", "default": []},
    "environment": {"type": "dict", "default": {}},
    "install_project": {"type": "bool", "default": False},
}
HIDDEN = ("/etc/{app}", "/var/lib/{app}", "/srv/*/shared")
UNPACK = (
    "rm -rf release wheel && mkdir -p home release && tar -xzf - -C release --no-same-owner "
    '&& ln -s "$VIRTUAL_ENV" release/.venv'
)
# The wheel is built where the commands left what belongs into it; what only building leaves goes.
WHEEL = """
before=$(find . -maxdepth 2 | sed s,^..,,)
uv build --quiet --wheel --out-dir=../wheel --no-create-gitignore
for name in build *.egg-info src/*.egg-info; do
    [ ! -e "$name" ] || printf '%s\\n' "$before" | grep -Fqx -- "$name" || rm -rf "$name"
done
uv pip install --quiet --no-index --no-deps --target=.site-packages ../wheel/*.whl
rm -f .site-packages/.lock
for script in .site-packages/bin/*; do
    [ ! -f "$script" ] || sed -i '1s|^#!.*python.*|#!{release}/.venv/bin/python|' "$script"
done
"""
PACK = "tar -czf - -C release --exclude ./.venv --exclude ./node_modules ."
CLEAN = "chmod -R u+w release 2>/dev/null || true; rm -rf release wheel"


class Build:
    """A folder and a user for one build."""

    def __init__(self, wanted: dict[str, Any], uv: str, index: Index) -> None:
        """Take the module's parameters, and the program that installs an app, with its index."""
        self.wanted, self.uv, self.index = wanted, uv, index
        self.unit = f"{wanted['app']}-build"
        self.folder = f"/var/cache/{self.unit}"
        self.variables = Path(f"/run/{self.unit}.env")

    def command(self, script: str, inside: bool) -> list[str]:
        """Return how a script is run."""
        credentials = f"/run/credentials/{self.unit}.service"
        settings = {
            "DynamicUser": "yes",
            "CacheDirectory": self.unit,
            "CacheDirectoryMode": "0700",
            "WorkingDirectory": f"{self.folder}/release" if inside else self.folder,
            "EnvironmentFile": str(self.variables),
            "ProtectHome": "yes",
            "ProtectProc": "invisible",
            "PrivateDevices": "yes",
            "CapabilityBoundingSet": "",
            "UMask": "0022",
        }
        options = [f"--property={name}={value}" for name, value in settings.items()]
        options += [
            f"--property=InaccessiblePaths=-{path}"
            for pattern in HIDDEN
            for path in map(str, Path("/").glob(pattern.format(**self.wanted)[1:]))
        ]
        for variable, file in self.index.files.items():
            options.append(f"--property=LoadCredential={file.name}:{file}")
            options.append(f"--setenv={variable}={credentials}/{file.name}")
        flags = ["--quiet", "--pipe", "--wait", "--collect", f"--unit={self.unit}"]
        return ["systemd-run", *flags, *options, "/bin/sh", "-e", "-c", script.replace("$", "$$")]

    def write_variables(self) -> None:
        """Say what the commands find in their environment; nobody else can read it."""
        venv = self.wanted["venv"]
        known = {"HOME": f"{self.folder}/home", "LC_ALL": "C.UTF-8", "VIRTUAL_ENV": venv}
        known |= {"PATH": f"{venv}/bin:{Path(self.uv).parent}:/usr/local/bin:/usr/bin:/bin"}
        known |= SETTINGS | system_certificates()
        known |= self.wanted["environment"]
        lines = [f"{name}={quoted(str(value))}\n" for name, value in known.items()]
        self.variables.touch(mode=0o600)
        self.variables.write_text("".join(lines))

    def run(self, step: str, script: str, inside: bool = True, **streams: Any) -> None:
        """Run a script, or refuse with the end of what it says."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | streams
        to_file = streams["stdout"] != subprocess.PIPE
        done = subprocess.run(
            self.command(script, inside),
            stderr=subprocess.PIPE if to_file else subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            **streams,
        )
        if done.returncode:
            said = last_lines((done.stderr if to_file else done.stdout) or "")
            raise RefusedError(
                f"{step} failed with code {done.returncode}. Its last output:\n{said}"
            )

    def all(self) -> None:
        """Unpack, run the commands one after the other, and pack."""
        wanted, partial = self.wanted, Path(f"{self.wanted['dest']}.part")
        self.write_variables()
        try:
            with Path(wanted["archive"]).open("rb") as archive:
                self.run("Unpacking the release", UNPACK, inside=False, stdin=archive)
            for command in wanted["commands"]:
                self.run(f"app_build_commands: `{command}`", command)
            if wanted["install_project"]:
                script = WHEEL.replace("{release}", wanted["release"])
                self.run("app_install_project: building a wheel of the app", script)
            with partial.open("wb") as built:
                self.run("Packing what was built", PACK, inside=False, stdout=built)
            partial.rename(wanted["dest"])
        finally:
            partial.unlink(missing_ok=True)
            self.run("Removing what was built in", CLEAN, inside=False)
            self.variables.unlink()


def quoted(value: str) -> str:
    """Quote a value for systemd's environment files."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS | WANTED)
    os.umask(0o022)
    try:
        with index_settings(module.params) as index:
            uv = install_uv(module.params["uv_lock"], index)
            Build(module.params, uv, index).all()
    except RefusedError as error:
        module.fail_json(msg=str(error))
    os.chmod(module.params["dest"], 0o644)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
