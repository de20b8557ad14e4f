"""A simulated host: systemd, and an app with behaviour set by its release and settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

from flaskstack import settings
from flaskstack.app_dir import SLOTS, AppDir
from flaskstack.change import Change, file_of
from flaskstack.settings import Settings
from flaskstack.units import Units

FIRST = {"services": ["shop-worker@1.service"], "timers": ["shop-nightly.timer"]}
SECOND = {"services": ["shop-mailer@1.service"], "timers": ["shop-hourly.timer"]}
# Steps that a test can interrupt.
STEPS = [
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "rename"),
    (Path, "symlink_to"),
    (AppDir, "record"),
]


def files(text: str, environment: str, config: dict[str, Any]) -> dict[str, str]:
    """Return the unit files of a settings set, which contain `text` and load `environment`."""
    read = f"# {text}\nEnvironmentFile={environment}\n"
    units = {"shop-web@.socket": "# the same\n", "shop-web@.service": read}
    for unit in map(file_of, config["services"]):
        units[unit] = f"{read}Slice=shop-processes.slice\n"
    for timer in config["timers"]:
        units[timer] = f"# {text}\n"
        units[timer.replace(".timer", ".service")] = f"{read}Slice=shop-timers.slice\n"
    params = [f"shop-web@{slot}.{kind}" for slot in "ab" for kind in ("socket", "service")]
    params += [*config["services"], *config["timers"]]
    return units | {"shop.target": "".join(f"Wants={unit}\n" for unit in params)}


class Cut(BaseException):
    """Simulates a power cut or a killed process."""


class Host:
    """A host that starts units like systemd: from loaded files, if their condition is met."""

    def __init__(self, tmp: Path) -> None:
        """Create the directories that role gunicorn creates."""
        self.root, self.etc = tmp / "srv", settings.ETC / "shop"
        self.app_dir, self.settings = AppDir(self.root, "shop"), Settings("shop")
        self.running: dict[str, dict[str, str]] = {}
        self.loaded: dict[str, str] = {}
        self.log: list[str] = []
        self.queue: list[int] = []  # waiting connections that successive checks report
        self.journal = "line one\nline two\n"
        self.busy = self.health_checks = 0  # `busy`: checks that a stopping unit survives
        for folder in ("releases", "instances", "environments"):
            (self.root / folder).mkdir(parents=True)
        for folder in (self.etc / "settings", self.etc / "slots", settings.UNITS, settings.STAMPS):
            folder.mkdir(parents=True)

    def ship(self, release: str, environment: str = "env") -> None:
        """Install a release on the host."""
        folder = self.root / "releases" / release
        if not folder.exists():
            folder.mkdir()
            (folder / ".venv").symlink_to(f"../../environments/{environment}")
            (self.root / "environments" / environment).mkdir(exist_ok=True)

    def set(self, text: str = "first", **config: Any) -> str:
        """Write a settings set with this text as its environment, and return its name."""
        usual = SECOND if "second" in text else FIRST
        config = {"watch": 0, "timeout": 0, "keep": 3} | usual | config
        units = files(text, f"{self.etc}/current/environment", config)
        units["shop-web@.service"] = f"# {text}\nEnvironmentFile={self.etc}/slots/%i/environment\n"
        texts = {f"units/{unit}": content for unit, content in units.items()}
        return self.settings.write(texts | {"environment": text}, config, -1)

    def change(self, release: str, name: str, **more: Any) -> Change:
        """Return a change to a release with a settings set."""
        params = {"app": "shop", "root": str(self.root), "release": release, "settings": name}
        return Change(params | {"by": "ada@desk"} | more, Units(self.run))

    def deploy(self, release: str, text: str = "first", **more: Any) -> dict[str, Any]:
        """Deploy a release with a settings set."""
        metadata = {name: more.pop(name) for name in ("commit", "action") if name in more}
        self.ship(release)
        return self.activate(release, self.set(text, **more), **metadata)

    def activate(self, release: str, name: str, **metadata: Any) -> dict[str, Any]:
        """Start a release with a settings set, and switch to it."""
        self.change(release, name, **metadata).start()
        return self.change(release, name, **metadata).switch()

    # Simulated systemd

    def text(self, unit: str) -> str:
        """Return the loaded file of a unit, or of its template if the unit has none."""
        template = re.sub(r"@[^@]*\.", "@.", unit)
        return self.loaded.get(unit, self.loaded.get(template, ""))

    def unit_files(self) -> dict[str, str]:
        """Return all unit files by name."""
        found = [path for path in settings.UNITS.glob("shop*") if path.is_file()]
        return {path.name: path.read_text() for path in found}

    def reload(self) -> None:
        """Load all unit files."""
        self.loaded = self.unit_files()

    def start(self, unit: str) -> None:
        """Start a unit if its condition is met."""
        web = re.fullmatch(r"shop-web@(.)\.\w+", unit)
        release = self.app_dir.release_in(web[1]) if web else self.app_dir.current()
        if not self.text(unit) or not (release and (self.root / "releases" / release).is_dir()):
            return
        file = re.search("EnvironmentFile=(.*)", self.text(unit))
        environment = Path(file[1].replace("%i", web[1] if web else "")).read_text() if file else ""
        fails = file and ("dies" if web else "idles") in f"{release} {environment}"
        state = ("activating", "auto-restart") if fails else ("active", "running")
        self.running[unit] = {
            "release": release,
            "environment": environment,
            "text": self.text(unit),
            "MainPID": str(len(self.log) + 100),
            **dict(zip(("ActiveState", "SubState"), state, strict=True)),
        }

    def stop(self, unit: str) -> None:
        """Stop a unit."""
        self.running.pop(unit, None)

    def run(self, argv: list[str]) -> tuple[int, str, str]:
        """Run a command like `flaskstack.units.command` does."""
        verb, *names = [word for word in argv[1:] if not word.startswith("-")] or [""]
        if argv[0] == "ss":
            waiting = self.queue.pop(0) if self.queue else 0
            return 0, f"u_str LISTEN {waiting} 2048 {argv[-1].split()[-1]} 1 * 0\n", ""
        if argv[0] == "journalctl":
            return 0, self.journal, ""
        if verb == "show" and "--all" in argv:
            timers = [unit for unit in self.running if unit.endswith(".timer")]
            known = {*self.running, *(unit.replace(".timer", ".service") for unit in timers)}
            shown = [unit for unit in known for name in names if fnmatch(unit, name)]
            return 0, "\n\n".join(self.shown(unit, True) for unit in shown), ""
        if verb == "show":
            return 0, "\n\n".join(self.shown(unit) for unit in names), ""
        self.log += [f"{verb} {unit}" for unit in names or [""] if verb != "reset-failed"]
        if verb == "daemon-reload":
            self.reload()
        for unit in names:
            if verb == "stop":
                self.stop(unit)
            elif verb == "restart" or (verb == "start" and unit not in self.running):
                self.start(unit)
        return int(verb == "is-enabled"), "", ""

    def shown(self, unit: str, slices: bool = False) -> str:
        """Return the output of `systemctl show`."""
        shown = {"Id": unit, "ActiveState": "inactive", "SubState": "dead", "MainPID": "0"}
        shown |= {"NRestarts": "0", "Result": "success", "TimeoutStopUSec": "1s"}
        shown |= self.running.get(unit, {})
        if self.busy and unit in FIRST["services"]:
            self.busy -= 1
            shown |= {"ActiveState": "deactivating", "SubState": "stop-sigterm", "Job": "7"}
        name = re.search("^Slice=(.*)$", self.text(unit), re.MULTILINE) if slices else None
        shown |= {"Slice": name[1]} if name else {}
        return "\n".join(f"{key}={value}" for key, value in shown.items() if "\n" not in value)

    def answer(self, socket_path: str) -> tuple[bool, str]:
        """Answer a health request."""
        self.health_checks += 1
        unit = self.running.get(f"shop-web@{socket_path.removesuffix('.sock')[-1]}.service", {})
        text = f"{unit.get('release', '')} {unit.get('environment', '')}"
        if "redirects" in text:
            return False, "GET /: 302 Found to /login (expected is 200)"
        healthy = "sick" not in text and not ("tires" in text and self.health_checks > 1)
        return bool(unit) and healthy, "GET /: 200"

    def boot(self) -> None:
        """Boot after a power cut."""
        self.running, self.busy, self.queue = {}, 0, []
        self.reload()
        self.change("", "").recover_at_boot()
        wants = re.findall(r"^Wants=(.*)$", self.loaded.get("shop.target", ""), re.MULTILINE)
        for unit in " ".join(wants).split():
            self.start(unit)

    @contextmanager
    def cut(self, after: int) -> Iterator[None]:
        """Interrupt a deploy after this number of steps."""
        steps = iter(range(after))

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                if next(steps, None) is None:
                    raise Cut
                return function(*arguments, **options)

            return step

        with ExitStack() as patches:
            for owner, name in [*STEPS, (self, "start"), (self, "reload"), (self, "stop")]:
                step = counted(getattr(owner, name))
                patches.enter_context(mock.patch.object(owner, name, step))
            yield

    def serves(self) -> tuple[str, str]:
        """Return the active release and environment; all units must have them."""
        app_dir, slot = self.app_dir, self.app_dir.live()
        release, name = app_dir.serving(), self.settings.current()
        assert (app_dir.current(), self.settings.in_slot(slot)) == (release, name)
        assert not (self.root / ".deploying").exists()
        texts, config = self.settings.files(name), self.settings.release(name)
        on_disk = self.unit_files()
        assert self.loaded == on_disk, "systemd has not read it"
        own = [f"shop-web@{slot}.socket", f"shop-web@{slot}.service"] if slot else []
        own += [*config.get("services", []), *config.get("timers", [])]
        assert set(self.running) - {"shop.target"} == set(own), "something else runs"
        for unit in own:
            ran, file = self.running[unit], file_of(unit).replace(f"@{slot}.", "@.")
            assert ran["ActiveState"] == "active"
            assert ran["text"] == texts[f"units/{file}"] == self.text(unit)
            assert ran["environment"] == self.environment(ran["text"], name)
            assert ran["release"] == release or not unit.endswith(".service")
        others = [
            {unit for unit in units if not unit.startswith(("shop-web@", "shop.target"))}
            for units in (on_disk, self.settings.units(name))
        ]
        assert others[0] == others[1]
        for other in set(SLOTS) - {slot}:
            assert not app_dir.release_in(other)
            assert not self.settings.in_slot(other)
        return release, self.environment("EnvironmentFile", name).strip()

    def environment(self, text: str, name: str) -> str:
        """Return the environment that a unit with the file `text` gets from a settings set."""
        if "EnvironmentFile" not in text or not name:
            return ""
        return self.settings.files(name)["environment"]

    def releases(self) -> list[str]:
        """Return the releases on the host."""
        return sorted(path.name for path in (self.root / "releases").iterdir())

    def sets(self) -> list[str]:
        """Return the texts of the settings sets on the host."""
        sets = self.settings.sets.iterdir()
        return sorted(self.environment("EnvironmentFile", path.name).strip() for path in sets)
