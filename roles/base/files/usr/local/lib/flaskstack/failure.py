# Ansible managed (role base of Flaskstack)
"""Report the failure of a unit in the journal, to the operator's command and to a webhook.

    failure.py SETTINGS UNIT

systemd runs it through OnFailure=. Since systemd 254 that includes failures after which the unit
restarts, so each unit calls the command and the webhook at most once per interval.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

COMMAND_TIMEOUT, WEBHOOK_TIMEOUT = 60, 10  # seconds
PAUSES = (0, 5, 20)  # seconds before each try of the webhook; the network may be down at boot
REASONS = {
    "core-dump": "crashed with signal {status}",
    "exit-code": "exited with status {status}",
    "oom-kill": "the kernel killed it for lack of memory",
    "resources": "systemd could not start it for lack of resources",
    "signal": "was killed with signal {status}",
    "start-limit-hit": "started too often",
    "timeout": "did not start or stop in time",
    "watchdog": "hung, and the watchdog ended it",
}


def show(unit: str) -> dict[str, str]:
    """Return the properties of a unit."""
    names = "ActiveState,ExecMainStatus,LoadState,NRestarts,Result,Transient"
    command = ["systemctl", "show", f"--property={names}", "--", unit]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def describe(unit: str, known: dict[str, str]) -> dict[str, object]:
    """Return what is reported, from the unit's properties and systemd's variables."""
    result = os.environ.get("MONITOR_SERVICE_RESULT") or known.get("Result", "")
    status = os.environ.get("MONITOR_EXIT_STATUS") or known.get("ExecMainStatus", "")
    restarts = int(known.get("NRestarts") or 0)
    reason = REASONS.get(result, "failed ({result})").format(result=result, status=status)
    stays = known["ActiveState"] in ("failed", "inactive")
    then = "It stays stopped" if stays else f"It restarts (restart {restarts})"
    return {
        "host": socket.gethostname(),
        "unit": unit,
        "result": result,
        "status": status,
        "restarts": restarts,
        "stopped": stays,
        "time": int(time.time()),
        "text": f"{unit}: {reason}. {then}.",
    }


def due(state: Path, interval: int) -> int | None:
    """Return the number of failures since the last notification, or None if that was recent.

    The clock of the host does not matter: the state is lost at boot, as is the monotonic time.
    """
    last, count = json.loads(state.read_text()) if state.exists() else (None, 0)
    now, count = time.monotonic(), count + 1
    recent = last is not None and now - last < interval
    state.write_text(json.dumps([last, count] if recent else [now, 0]))
    return None if recent else count


def run_command(command: list[str], event: dict[str, object]) -> None:
    """Run the operator's command with the event in its environment, and as JSON on its input."""
    names = {f"FAILURE_{name.upper()}": str(value) for name, value in event.items()}
    subprocess.run(
        command,
        env=os.environ | names,
        input=f"{json.dumps(event)}\n",
        text=True,
        check=True,
        timeout=COMMAND_TIMEOUT,
    )


def call_webhook(url: str, event: dict[str, object]) -> None:
    """Send the event as JSON; services like Slack and Mattermost show its `text`."""
    headers = {"Content-Type": "application/json", "User-Agent": "flaskstack"}
    for pause in PAUSES:
        time.sleep(pause)
        try:
            request = urllib.request.Request(url, json.dumps(event).encode(), headers)
            with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT):
                return
        except OSError as error:
            last = error
            if isinstance(error, urllib.error.HTTPError):
                error.close()
    raise last


def main(settings: dict, unit: str, states: Path) -> int:
    """Report the failure; return 1 if the command or the webhook failed."""
    known = show(unit)
    if known.get("Transient") == "yes" or known.get("LoadState") != "loaded":
        return 0  # such as a command that the operator runs, who sees its failure
    event = describe(unit, known)
    print(f"<3>{event['text']} Its log: journalctl --unit '{unit}'", flush=True)
    failures = due(states / unit, settings["interval"])
    if failures is None:
        return 0
    event |= {"failures": failures, "text": f"{event['host']}: {event['text']}"}
    if failures > 1:
        event["text"] += f" {failures} failures since the last message."
    code = 0
    for name, call in (("command", run_command), ("webhook", call_webhook)):
        if settings[name]:
            try:
                call(settings[name], event)
            except (OSError, subprocess.SubprocessError) as error:
                # Without the message of the error: it may have the URL, which may be secret.
                print(f"<4>base_failure_{name} failed: {type(error).__name__}", flush=True)
                code = 1
    return code


if __name__ == "__main__":
    folder = Path(os.environ["RUNTIME_DIRECTORY"])
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], folder))
