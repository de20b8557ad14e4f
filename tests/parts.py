"""Parts of role release, imported as Ansible does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROLE = Path(__file__).parents[1] / "roles/release"


def load_part(path: str) -> ModuleType:
    """Import a file of the role; what it imports of the role must have been imported before."""
    name = Path(path).stem
    name = f"ansible.module_utils.{name}" if path.startswith("module_utils/") else name
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROLE / path)
        if not (spec and spec.loader):
            raise ImportError(path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
