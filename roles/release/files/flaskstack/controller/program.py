"""Pack this package for hosts into one file, named by its content.

The standard library's zipapp stores dates, so the same content would get a different name.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
DATE = (1980, 1, 1, 0, 0, 0)  # fixed, so that the same content results in the same file


def pack() -> tuple[str, bytes]:
    """Return the program's file name and content, a zipapp without the controller's part."""
    memory = io.BytesIO()
    memory.write(b"#!/usr/bin/python3\n")
    with zipfile.ZipFile(memory, "w") as packed:  # uncompressed: zlib's output varies
        for path in sorted(PACKAGE.glob("*.py")):
            packed.writestr(zipfile.ZipInfo(f"flaskstack/{path.name}", DATE), path.read_bytes())
        start = "import runpy\n\nrunpy.run_module('flaskstack', run_name='__main__')\n"
        packed.writestr(zipfile.ZipInfo("__main__.py", DATE), start)
    content = memory.getvalue()
    return f"flaskstack-{hashlib.sha256(content).hexdigest()[:12]}.pyz", content
