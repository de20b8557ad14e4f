"""The Python interpreters of a host."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

ASK = "import platform, sys; print(platform.python_version(), sys.executable)"
FOLDERS = ("/usr/local/bin", "/usr/bin", "/opt/*/bin")


def ask(module: Any, path: str) -> tuple[str, str]:
    """Return an interpreter's version and real path; both empty when it does not run."""
    code, output, _ = module.run_command([path, "-I", "-c", ASK])
    version, _, executable = output.partition(" ")
    return ("", "") if code else (version, os.path.realpath(executable.strip()))


def others(module: Any, known: dict[str, str]) -> dict[str, str]:
    """Return the path of each version that is there; some are known."""
    found = dict(known)
    for folder in FOLDERS:
        for path in sorted(Path("/").glob(f"{folder[1:]}/python3*")):
            wanted = re.fullmatch(r"python3(\.\d+)?", path.name) and os.access(path, os.X_OK)
            if wanted and os.path.realpath(path) not in found.values():
                version, executable = ask(module, str(path))
                if version and executable not in found.values():
                    found.setdefault(version, executable)
    return found


def interpreter(module: Any, name: str) -> dict[str, Any]:
    """Return what there is under a name (3.12, python3 or a path), and what else there is."""
    path = module.get_bin_path(f"python{name}" if name[0].isdecimal() else name)
    version, executable = ask(module, path) if path else ("", "")
    known = {version: executable} if version else {}
    return {
        "version": version,  # empty when there is none
        "executable": executable,
        "machine": platform.machine(),
        "found": others(module, known),  # versions that are there, and where
    }
