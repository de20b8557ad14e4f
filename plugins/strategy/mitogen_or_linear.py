"""Run tasks with mitogen, or with `linear` if mitogen cannot be used.

Mitogen keeps one Python interpreter on each host instead of starting one for each task. It comes
from PyPI, pinned in requirements.lock. `ANSIBLE_STRATEGY=linear` disables it.
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

# Changelog of mitogen 0.3.49: "First Ansible 14 support" (ansible-core 2.21).
NEWEST_SUPPORTED = (2, 21)
ENFORCED = "StrictHostKeyChecking yes"


def strategy(version: str = ansible_version) -> type[LinearStrategy]:
    """Return mitogen's strategy, or print a notice and return `linear` if it is unsupported."""
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
    """Remove mitogen's StrictHostKeyChecking if the ssh arguments set it.

    ssh uses the first value, which is mitogen's. A new server would be rejected, whatever
    ssh_common_args contains.
    """
    from mitogen.ssh import Connection

    command = Connection.get_boot_command

    def get_boot_command(self: Connection) -> list[str]:
        words = command(self)
        own = any("stricthostkeychecking" in word.lower() for word in self.options.ssh_args or [])
        if own and ENFORCED in words:
            place = words.index(ENFORCED)
            del words[place - 1 : place + 1]  # includes the preceding -o
        return words

    Connection.get_boot_command = get_boot_command


StrategyModule = strategy()
