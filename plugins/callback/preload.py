"""Load plugins once, before Ansible forks a process for each task."""

from __future__ import annotations

from collections import deque
from typing import Any

from ansible.collections.list import list_collection_dirs
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: preload
type: aggregate
short_description: Load plugins once
description:
  - Ansible forks a process for each task. It inherits what the parent process has loaded, and what
    it loads itself is lost when it exits.
  - Each process would load all filters and tests for its templates. With mitogen, it would also
    read the metadata of all collections before it runs a module of one.
author: Flaskstack
"""


class CallbackModule(CallbackBase):
    """Load plugins when a playbook starts, without output."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load all filters, tests and collections."""
        for plugins in (filter_loader.all(), test_loader.all(), list_collection_dirs()):
            deque(plugins, maxlen=0)
