"""Parts of roles, to import as Ansible does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from repository import ROOT

ROLE = ROOT / "roles/release"


def load(name: str, path: Path) -> ModuleType:
    """Import a file by its path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
