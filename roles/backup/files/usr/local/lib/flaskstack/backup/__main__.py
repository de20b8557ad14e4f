# Ansible managed (role backup of Flaskstack)
"""Run the backup program: python3 -I -B DIRECTORY SETTINGS ACTION."""

import sys

from flaskstack_backup.cli import main

sys.exit(main())
