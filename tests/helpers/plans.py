"""Plans for example inventories."""

from plan_sizes import plan_sizes
from plan_timeouts import plan_timeouts

TIERS = ("edge", "app", "database", "cache", "queue")
# Memory (MiB) reported by hosts of 512 MB, 1, 2, 4, 8, 16 and 32 GB, and their usual CPUs.
HOSTS = ((460, 1), (960, 1), (1960, 2), (3900, 2), (7940, 4), (15990, 8), (32100, 8))


def host(memory=1960, cpus=2, tiers=TIERS, processes=2, provider="mariadb", **given):
    """Return a host like filter plan_inputs does; `processes` is a count or a list of limits."""
    worker_class = given.pop("gunicorn_worker_class", "gthread")
    limits = [0] * processes if isinstance(processes, int) else processes
    return {
        "memory": memory,
        "cpus": cpus,
        "tiers": list(tiers),
        "provider": provider,
        "worker_class": worker_class,
        "streams": given.pop("streams", []),
        "processes": limits if "app" in tiers else [],
        "given": given,
        "invalid": [],
    }


def planned(**site):
    """Return the site with its plans."""
    return plan_sizes(plan_timeouts(site))


def failing(checks):
    """Return the variables that failed checks name."""
    return [check["variable"] for check in checks]
