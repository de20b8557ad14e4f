"""Pack what build commands made of a release as every other release is packed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.app_archive import pack
from ansible.module_utils.app_source import unpack
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_refusal import RefusedError

DOCUMENTATION = """
module: pack_release
short_description: Pack a release that was built on a host
description: Runs on the controller. What was built and what it was made of are removed.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "built": {"type": "path", "required": True},  # archive that came from the host
    "source": {"type": "path", "required": True},  # archive that it was built from
    "archive": {"type": "path", "required": True},  # what hosts get
    "environment": {"type": "dict", "required": True},  # of the release's processes
    "links": {"type": "dict", "default": {}},  # out of the release, and where to
}


def repack(params: dict[str, Any]) -> None:
    """Write the archive that hosts get."""
    archive = Path(params["archive"])
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".work-") as work:
        app = Path(work, "app")
        app.mkdir()
        unpack(Path(params["built"]), app)
        pack(app, params["environment"], params["links"], archive)
    Path(params["built"]).unlink()
    Path(params["source"]).unlink(missing_ok=True)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS)
    try:
        repack(module.params)
    except RefusedError as error:
        module.fail_json(msg=f"app_build_commands: {error}")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
