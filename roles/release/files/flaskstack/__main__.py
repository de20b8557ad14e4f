"""`flaskstack call NAME` is for Ansible, everything else for people."""

from __future__ import annotations

import sys

from flaskstack.calls import call
from flaskstack.cli import main

if __name__ == "__main__":
    sys.exit(call(sys.argv[2]) if sys.argv[1:2] == ["call"] else main())
