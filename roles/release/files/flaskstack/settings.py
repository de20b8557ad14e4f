"""Sets of settings of an app. Each is written once and activated together with a release.

A set holds the environment, Gunicorn's configuration, the app's own files and the unit files. Its
name is a hash of these. `release.json` (health check and units) is not hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from flaskstack.files import link, listing, read, remove, sync, target, write

ETC = Path("/etc")
UNITS = Path("/etc/systemd/system")
# systemd's records of each timer's last run. With an old record, a restored timer runs at once.
STAMPS = Path("/var/lib/systemd/timers")


class Settings:
    """The sets of an app, the active ones, and the unit files created from them."""

    def __init__(self, app: str) -> None:
        """Use the settings of the app named `app`."""
        self.app, self.etc = app, ETC / app
        self.sets = self.etc / "settings"
        self.marker = self.etc / "singletons"  # exists on the host that runs the fleet's singletons

    # Stored sets.

    def write(self, files: dict[str, str], release: dict[str, Any], group: int) -> str:
        """Write a set and return its name; `files` are texts by path, `group` the app's.

        `release` is not part of the hash, so it is rewritten for an existing set.
        """
        name = name_of(files)
        folder, partial = self.sets / name, self.sets / f".{name}"
        if not folder.is_dir():
            remove(partial)
            create_folders(partial / "files", self.etc, group)
            self.fill(partial, files, group)
            self.write_release(partial.name, release, group)
            partial.rename(folder)
            sync(self.sets)
        self.write_release(name, release, group)
        return name

    def write_release(self, name: str, release: dict[str, Any], group: int) -> None:
        """Write the health check and units of a set (`release.json`)."""
        text = json.dumps(release, indent=2, sort_keys=True) + "\n"
        self.fill(self.sets / name, {"release.json": text}, group)

    def fill(self, folder: Path, files: dict[str, str], group: int) -> None:
        """Write texts by path into a folder; unchanged files are not rewritten."""
        for path, text in files.items():
            create_folders((folder / path).parent, self.etc, group)
            if read(folder / path) != text:
                write(folder / path, text, 0o640, group)

    def release(self, name: str) -> dict[str, Any]:
        """Return the health check and units of a set (`release.json`).

        On the singleton host, `services` and `timers` include the singletons.
        """
        found = json.loads(read(self.sets / name / "release.json") or "{}") if name else {}
        if singletons := [] if self.marker.exists() else found.get("singletons", []):
            for kind in ("services", "timers"):
                found[kind] = [unit for unit in found.get(kind, []) if unit not in singletons]
        return found

    def files(self, name: str) -> dict[str, str]:
        """Return the texts of a set by path."""
        folder = self.sets / name
        paths = [path for path in folder.rglob("*") if path.is_file()] if name else []
        texts = {path.relative_to(folder).as_posix(): path.read_text() for path in paths}
        texts.pop("release.json", None)
        return texts

    def exists(self, name: str) -> bool:
        """Return whether a set is on the host."""
        return bool(name) and (self.sets / name).is_dir()

    def changed(self, old: str, new: str) -> set[str]:
        """Return the paths in which two sets differ."""
        return different(self.files(old), self.files(new))

    # Active sets.

    def current(self) -> str:
        """Return the set of background processes and commands."""
        return target(self.etc / "current")

    def in_slot(self, slot: str) -> str:
        """Return the set of a slot."""
        return target(self.etc / "slots" / slot) if slot else ""

    def assign_slot(self, slot: str, name: str) -> bool:
        """Assign a set to a slot (empty: none); return whether systemd must reload its units."""
        link(self.etc / "slots" / slot, f"../settings/{name}" if name else "")
        changed = [  # with no set, unit files stay: the instance may still be stopping
            self.install(unit.replace("-web@.", f"-web@{slot}."), text)
            for unit, text in self.units(name).items()
            if "-web@." in unit
        ]
        return any(changed)

    def use(self, name: str) -> list[str]:
        """Activate a set for background processes and commands; return the changed unit files."""
        link(self.etc / "current", f"settings/{name}" if name else "")
        units = {unit: text for unit, text in self.units(name).items() if "-web@." not in unit}
        gone = self.process_files() - set(units)
        changed = [unit for unit, text in units.items() if self.install(unit, text)]
        for unit in gone:
            (UNITS / unit).unlink()
            (STAMPS / f"stamp-{unit}").unlink(missing_ok=True)
        return [*changed, *gone]

    def units(self, name: str) -> dict[str, str]:
        """Return the unit files of a set by name."""
        texts = self.files(name)
        return {path[6:]: text for path, text in texts.items() if path.startswith("units/")}

    def installed(self, slot: str, name: str) -> bool:
        """Return whether the installed unit files match a set in a slot."""
        return all(
            read(UNITS / unit.replace("-web@.", f"-web@{slot}.")) == text
            for unit, text in self.units(name).items()
        )

    def install(self, unit: str, text: str) -> bool:
        """Write a unit file; return whether it changed."""
        path = UNITS / unit
        if read(path) == text:
            return False
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write(path, text)
        return True

    def process_files(self) -> set[str]:
        """Return the unit files of the app's background processes, identified by their slice."""
        slices = re.compile(rf"(?m)^Slice={re.escape(self.app)}-(processes|timers)\.slice$")
        services = {
            path.name
            for path in UNITS.glob(f"{self.app}-*.service")
            if slices.search(path.read_text())
        }
        timers = {name.removesuffix(".service") + ".timer" for name in services}
        return services | {name for name in timers if (UNITS / name).exists()}

    # Removal of old sets.

    def prune(self, kept: set[str]) -> None:
        """Remove all sets except the given and the active ones."""
        kept = kept | {self.current(), self.in_slot("a"), self.in_slot("b")}
        for path in listing(self.sets):
            if path.name not in kept:
                remove(path)


def name_of(files: dict[str, str]) -> str:
    """Return the name of a set: a hash of its texts by path."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


def different(old: dict[str, str], new: dict[str, str]) -> set[str]:
    """Return the keys with different values."""
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return the differences between two sets: names of variables, files and units."""
    found, variables = different(old, new), []
    if "environment" in found:
        for texts in (old, new):
            lines = texts.get("environment", "").splitlines()
            variables.append(dict(line.split("=", 1) for line in lines if "=" in line))
        found |= different(*variables)
    return sorted(found - {"environment"})


def create_folders(folder: Path, start: Path, group: int) -> None:
    """Create the folders below `start` down to `folder`; the app may enter and read them."""
    for path in [*reversed(folder.parents), folder]:
        if path.is_relative_to(start) and path != start and not path.exists():
            path.mkdir(mode=0o750)
            os.chown(path, -1, group)
