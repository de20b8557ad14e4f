"""Run tasks with mitogen, or with Ansible's own `linear` where mitogen cannot be used.

Mitogen keeps one Python interpreter on each host instead of starting one for each task. It comes
from PyPI, pinned in requirements.lock; `ANSIBLE_STRATEGY=linear` does without it.
"""

from __future__ import annotations

from ansible.plugins.strategy.linear import StrategyModule as LinearStrategy
from ansible.release import __version__ as ansible_version
from ansible.utils.display import Display

DOCUMENTATION = """
name: mitogen_or_linear
short_description: Run tasks with mitogen where it is installed
description:
  - The strategy C(mitogen_linear) of the installed Python package mitogen.
  - Where mitogen is missing, or does not support the running ansible-core, the strategy C(linear).
author: Flaskstack
"""

# "First Ansible 14 support" (ansible-core 2.21), says the changelog of mitogen 0.3.49.
NEWEST_SUPPORTED = (2, 21)
ENFORCED = "StrictHostKeyChecking yes"


def strategy(version: str = ansible_version) -> type[LinearStrategy]:
    """Return mitogen's strategy for this version of ansible-core, or `linear` after a notice."""
    try:
        if tuple(map(int, version.split(".")[:2])) > NEWEST_SUPPORTED:
            raise ImportError(f"it does not support ansible-core {version}")
        from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule
    except ImportError as error:
        Display().display(f"Mitogen is not used, so runs take about three times as long: {error}")
        return LinearStrategy
    _leave_host_keys_to_ssh()
    return StrategyModule


def _leave_host_keys_to_ssh() -> None:
    """Keep mitogen's StrictHostKeyChecking out where ssh has its own, as without mitogen.

    Mitogen's comes first, and ssh goes by the first: a new server would be refused, whatever
    ssh_common_args says.
    """
    from mitogen.ssh import Connection

    command = Connection.get_boot_command

    def get_boot_command(self: Connection) -> list[str]:
        words = command(self)
        own = any("stricthostkeychecking" in word.lower() for word in self.options.ssh_args or [])
        if own and ENFORCED in words:
            place = words.index(ENFORCED)
            del words[place - 1 : place + 1]  # with its -o
        return words

    Connection.get_boot_command = get_boot_command


StrategyModule = strategy()
