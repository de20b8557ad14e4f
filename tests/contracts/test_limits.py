"""The alerts and the problems of the status have the same limits."""

import pytest

from flaskstack.host_status import (
    CERTIFICATE_DAYS,
    DISK_FULL,
    LEAST_MEMORY,
    REPLICATION_LAG,
    SERVICE_MEMORY,
    SITE_ERRORS,
)
from helpers import repository

RULES = repository.load("roles/monitoring/files/etc/flaskstack/monitoring/rules.yml")
EXPRESSIONS = {rule["alert"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}


@pytest.mark.parametrize(
    ("alert", "limit"),
    [
        ("DiskFull", f">= {DISK_FULL / 100:g}"),
        ("InodesFull", f">= {DISK_FULL / 100:g}"),
        ("MemoryLow", f"< {LEAST_MEMORY / 100:g}"),
        ("ServiceMemory", f">= {SERVICE_MEMORY / 100:g}"),
        ("ReplicationLag", f">= {REPLICATION_LAG}"),
        ("SiteErrors", f">= {SITE_ERRORS}"),
        ("CertificateExpires", f"< {CERTIFICATE_DAYS} * 86400"),
    ],
)
def test_alerts_have_the_limits_of_the_status(alert, limit):
    assert EXPRESSIONS[alert].endswith(f" {limit}")
