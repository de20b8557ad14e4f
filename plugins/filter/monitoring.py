"""Exporters of each host, targets of Prometheus, and checks of role monitoring."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parent))

from networks import LOOPBACK, not_networks
from problems import Check, check, none_of

Hostvars = Mapping[str, Mapping[str, Any]]
Groups = Mapping[str, Sequence[str]]

# Ports of the exporters that all apps of a host share, and the default ports of those of one app.
HOST_PORTS = {"node": 9100, "mysqld": 9104, "nginx": 9113}
APP_PORTS = {"app": 9101, "redis": 9121}
SERVER_PORTS = {9090, 9093}
FOLDER, UNITS, LIBRARY = "/etc/flaskstack/monitoring", "/etc/systemd/system", "/usr/local/lib"


class Part(NamedTuple):
    """Something that the role runs, with the template of each file. `{}` is the app's name."""

    groups: set[str]  # of its hosts
    units: list[str]
    files: dict[str, str]
    package: str = ""
    shared: bool = False  # by all apps of the host; the owner of the host configures it
    server: bool = False  # on monitoring_server only


def _packaged(name: str, groups: set[str], server: bool = False, **files: str) -> Part:
    drop_in = {f"{UNITS}/{name}.service.d/flaskstack.conf": "exporter.conf"}
    own = {f"{FOLDER}/{file}": file for file in files.values()}
    return Part(groups, [f"{name}.service"], drop_in | own, name, True, server)


EVERY = {"all"}
PARTS = {
    "node": _packaged("prometheus-node-exporter", EVERY),
    "mysqld": _packaged("prometheus-mysqld-exporter", {"database"}, account="mysqld.cnf"),
    "nginx": _packaged("prometheus-nginx-exporter", {"edge"}),
    "prometheus": _packaged("prometheus", EVERY, True, main="prometheus.yml", rules="rules.yml"),
    "alertmanager": _packaged("prometheus-alertmanager", EVERY, True, main="alertmanager.yml"),
    "redis": Part(
        {"cache", "queue"},
        ["{}.redis-exporter.service"],
        {
            f"{UNITS}/{{}}.redis-exporter.service": "app.redis-exporter.service",
            f"{FOLDER}/{{}}-redis.json": "redis.json",
        },
        "prometheus-redis-exporter",
    ),
    "app": Part(
        {"app"},
        ["{}.exporter.service"],
        {
            f"{UNITS}/{{}}.exporter.service": "app.exporter.service",
            f"{LIBRARY}/flaskstack/{{}}-app-exporter.py": "app_exporter.py",
        },
        "prometheus-node-exporter",  # creates the user
    ),
    "status": Part(
        EVERY,
        ["{}.status.timer"],
        {
            f"{UNITS}/{{}}.status.service": "app.status.service",
            f"{UNITS}/{{}}.status.timer": "app.status.timer",
            "/etc/ansible/facts.d/flaskstack_monitoring_{}.fact": "facts.json",
        },
    ),
}
# Units that a package enables, and that the role never uses: it has one for each app.
UNUSED = {"prometheus-redis-exporter": "prometheus-redis-exporter.service"}


def monitoring_parts(
    groups: Iterable[str],
    app: str,
    enabled: bool,
    owner: bool,
    serves: bool,
    recorded: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the packages, files (with their templates) and units of a host.

    `absent` are files that it does not have (any more), `unused` units that a package enables, and
    `stopped` the units of an earlier run (`recorded`) that it does not have any more. `owner`: the
    app owns the settings of the host. `serves`: the host runs Prometheus.
    """
    own = EVERY | {*groups}
    mine = [part for part in PARTS.values() if owner or not part.shared]
    active = [part for part in mine if enabled and part.groups & own and serves >= part.server]
    files = {path.format(app): template for part in active for path, template in part.files.items()}
    units = [unit.format(app) for part in active for unit in part.units]
    packages = list(dict.fromkeys(part.package for part in active if part.package))
    every = [path.format(app) for part in mine for path in part.files]
    metrics = [f"/var/lib/flaskstack/metrics/{name}.prom" for name in (f"{app}_status", "host")]
    every += [] if enabled else metrics
    secret = (f"{FOLDER}/{app}-redis.json", f"{FOLDER}/alertmanager.yml")
    own_units = {unit.format(app) for part in mine for unit in part.units}
    stopped = [unit for unit in recorded if unit in own_units and unit not in units]
    stopped += [unit.replace(".timer", ".service") for unit in stopped if ".timer" in unit]
    return {
        "packages": packages,
        "files": files,
        "units": units,
        "modes": dict.fromkeys(secret, "0640"),
        "groups": dict.fromkeys(secret, "prometheus"),
        "absent": [path for path in every if path not in files],
        "stopped": stopped,
        "unused": [unit for package, unit in UNUSED.items() if package in packages],
    }


# Files of the role that are no templates.
STATIC = {"app_exporter.py", "rules.yml"}


def monitoring_templates(
    files: Mapping[str, str], commands: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the files as `templates` of module flaskstack; drop-ins get their unit's command."""
    found: list[dict[str, Any]] = []
    for path, template in files.items():
        folder = Path(path).parent
        if template in STATIC:
            found.append({"path": path, "src": f"{str(folder)[1:]}/{template}", "static": True})
        elif template == "exporter.conf":
            known = {"exporter": commands[folder.name.removesuffix(".d")]}
            found.append({"path": path, "src": f"{UNITS[1:]}/{template}.j2", "vars": known})
        else:
            found.append({"path": path, "src": f"{str(folder)[1:]}/{template}.j2"})
    return found


def listen_addresses(address: str, app_ports: Mapping[str, Any]) -> dict[str, str]:
    """Return address and port of each exporter."""
    ports = HOST_PORTS | {name: int(port) for name, port in app_ports.items()}
    return {name: _joined(address, port) for name, port in ports.items()}


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


NUMBERS = {  # minimum, maximum and example
    "monitoring_interval": (15, 300, 60),  # alert MetricsOld waits for 600 seconds
    "monitoring_scrape_interval": (1, None, 15),
    "monitoring_retention": (1, None, 15),
    "monitoring_memory_limit": (64, None, 256),
}
EXPORTER_MEMORY, ALERTMANAGER_MEMORY, PROMETHEUS_MEMORY = 20, 32, 256  # MiB; the last is a limit


def monitoring_memory(variables: Mapping[str, Any], tiers: Iterable[str], host: str) -> int:
    """Return the MiB that exporters and Prometheus use on a host."""
    server = variables.get("monitoring_server", "")
    if not variables.get("monitoring_enabled", bool(server)):
        return 0
    own = EVERY | {*tiers}
    size = EXPORTER_MEMORY * sum(
        bool(PARTS[name].groups & own) for name in (*HOST_PORTS, *APP_PORTS)
    )
    if server == host:
        limit = int(variables.get("monitoring_memory_limit", PROMETHEUS_MEMORY))
        size += ALERTMANAGER_MEMORY + limit
    return size


def _ports(variables: Mapping[str, Any]) -> dict[str, int]:
    """Return the ports of the exporters of a host, from its variables in the inventory."""
    return HOST_PORTS | {
        name: int(variables.get(f"monitoring_{name}_port", port))
        for name, port in APP_PORTS.items()
    }


def _exporters(groups: Groups, host: str) -> list[str]:
    own = EVERY | {group for group, hosts in groups.items() if host in hosts}
    return [name for name in (*HOST_PORTS, *APP_PORTS) if PARTS[name].groups & own]


def scrape_targets(
    hostvars: Hostvars, groups: Groups, server: str, app: str
) -> dict[str, list[dict[str, Any]]]:
    """Return the static_configs of each job of Prometheus on the host `server`."""
    jobs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*HOST_PORTS, *APP_PORTS)}
    for host in groups["all"]:
        variables = hostvars[host]
        address = variables.get("monitoring_address", "127.0.0.1")
        for name in _exporters(groups, host):
            target = {"targets": [_joined(address, _ports(variables)[name])]}
            labels = {"host": host}
            if name == "app":
                labels["app"] = app
            if name != "redis":
                jobs[name].append(target | {"labels": labels})
                continue
            for instance in ("cache", "queue"):
                if host in groups.get(instance, []):
                    own = {"app": app, "instance": f"{host} {instance}", "redis": instance}
                    socket = f"unix:///run/redis-{app}-{instance}/redis.sock"
                    own |= {"__param_target": socket}
                    jobs[name].append(target | {"labels": labels | own})
    return {name: configs for name, configs in jobs.items() if configs}


def monitoring_services(hostvars: Hostvars, groups: Groups, host: str) -> list[dict[str, Any]]:
    """Return the firewall rules of a host for its exporters.

    They are open to `firewall_addresses` of monitoring_server, and to `monitoring_sources`.
    """
    variables = hostvars[host]
    server = variables.get("monitoring_server", "")
    address = str(variables.get("monitoring_address", "127.0.0.1"))
    if not variables.get("monitoring_enabled", bool(server)) or address in LOOPBACK:
        return []
    sources = list(variables.get("monitoring_sources", []))
    if server in groups["all"] and server != host:
        sources += hostvars[server].get("firewall_addresses", [])
    if not sources:
        return []
    ports = _ports(variables)
    return [
        {
            "port": str(ports[name]),
            "protocol": "tcp",
            "sources": sources,
            "comment": f"{name} metrics",
        }
        for name in _exporters(groups, host)
    ]


def monitoring_checks(
    settings: Mapping[str, Any],
    hostvars: Hostvars,
    groups: Groups,
    host: str,
    local: Mapping[str, Any],
    app: str,
) -> Iterator[Check]:
    """Return the checks of role monitoring on a host with these local facts."""
    address, server = settings["monitoring_address"], settings["monitoring_server"]
    yield check(
        "monitoring_address",
        _is_private(address),
        "must be a loopback or private IP address of the host, since metrics must not be public",
        example="10.0.0.5",
    )
    yield check(
        "monitoring_server",
        not server or server in groups["all"],
        f"must be a host of the inventory ({', '.join(groups['all'])}), or empty",
        example=groups["all"][0],
    )
    remote = settings["monitoring_enabled"] and server in groups["all"] and server != host
    yield check(
        "monitoring_address",
        not remote or address not in LOOPBACK,
        f"must be an address of {host} that {server}, the host with Prometheus, can connect to",
        example="10.0.0.5",
    )
    sources = hostvars[server].get("firewall_addresses") if remote else True
    yield check(
        "firewall_addresses",
        sources,
        f"must have an address of {server} from which Prometheus connects to {host}",
        value=[],
        example=["10.0.0.6"],
    )
    invalid = not_networks(settings["monitoring_sources"])
    reason = "must be IP addresses or networks"
    yield none_of("monitoring_sources", invalid, reason, example=["10.0.0.9"])
    for variable, (least, most, example) in NUMBERS.items():
        reason = f"must be {least} or more" if most is None else f"must be from {least} to {most}"
        valid = least <= settings[variable] <= (most or settings[variable])
        yield check(variable, valid, reason, example=example)
    yield from _port_checks(settings, local, app)
    yield check(
        "monitoring_receiver",
        "name" not in settings["monitoring_receiver"],
        "must not have a name, since the role sets it",
        example={"webhook_configs": [{"url": "http://127.0.0.1:8000/alert"}]},
    )


def _port_checks(
    settings: Mapping[str, Any], local: Mapping[str, Any], app: str
) -> Iterator[Check]:
    """Return the checks that the ports are free of other exporters and other apps."""
    facts = [fact for name, fact in local.items() if name.startswith("flaskstack_monitoring_")]
    others = {fact["app"]: fact["ports"] for fact in facts if fact["app"] != app}
    used = {port for ports in others.values() for port in ports}
    owners = ", ".join(f"{name} uses {' and '.join(map(str, own))}" for name, own in others.items())
    taken = used | {*HOST_PORTS.values()} | SERVER_PORTS
    for name in APP_PORTS:
        variable = f"monitoring_{name}_port"
        port = settings[variable]
        reason = (
            f"must not be used by another exporter or app on this host ({owners or 'see README'})"
        )
        free = 0 < port < 65536 and port not in taken
        free = free and (name == "app" or port != settings["monitoring_app_port"])
        yield check(variable, free, reason, example=max({9130, *used}) + 1 + (name == "redis"))


def _is_private(address: Any) -> bool:
    try:
        parsed = ip_address(str(address))
    except ValueError:
        return False
    return not (parsed.is_global or parsed.is_unspecified or parsed.is_multicast)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "listen_addresses": listen_addresses,
            "monitoring_checks": monitoring_checks,
            "monitoring_parts": monitoring_parts,
            "monitoring_services": monitoring_services,
            "monitoring_templates": monitoring_templates,
            "scrape_targets": scrape_targets,
        }
