"""Entry point: `flaskstack call NAME` is for Ansible, all other commands are for operators."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["call"]:
        from flaskstack.calls import call

        sys.exit(call(sys.argv[2]))
    from flaskstack.cli import main

    sys.exit(main())
