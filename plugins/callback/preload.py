"""Load filters and tests once, before Ansible forks a process for each task."""

from __future__ import annotations

from collections import deque
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: preload
type: aggregate
short_description: Load filters and tests once
description:
  - A process that Ansible forks for a task has what its parent has loaded, and takes what it loads
    itself with it when it ends. Templates are rendered in those processes, so each of them
    would load all filters and tests again.
author: Flaskstack
"""


class CallbackModule(CallbackBase):
    """Load plugins when a playbook starts, without output."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Cache the plugins of both loaders."""
        for loader in (filter_loader, test_loader):
            deque(loader.all(), maxlen=0)
