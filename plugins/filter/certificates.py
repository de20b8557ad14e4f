"""Names, settings and checks of a site's certificate."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

# Reserved domains, for which no public certificate is issued.
RESERVED = re.compile(
    r"(.*[.])?example[.](com|net|org)\Z|.*[.](example|invalid|internal|local|localhost|test)\Z"
)


def certificate_problems(
    certificate: str, key: str, names: list[str], now: datetime | None = None
) -> list[str]:
    """Return the reasons why a PEM certificate (chain) and its key cannot serve `names`."""
    now = now or datetime.now(UTC)
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        return ["the certificate is not a PEM file (-----BEGIN CERTIFICATE-----)"]
    site = chain[0]
    problems = _key_problems(site, key)
    missing = [name for name in names if not _covers(_names_of(site), name)]
    if missing:
        covered = ", ".join(_names_of(site)) or "no names"
        problems.append(f"it covers {covered}, but not {', '.join(missing)}")
    if now > site.not_valid_after_utc:
        problems.append(f"it expired on {site.not_valid_after_utc:%Y-%m-%d}")
    if now < site.not_valid_before_utc:
        problems.append(f"it is not valid before {site.not_valid_before_utc:%Y-%m-%d}")
    for below, above in pairwise(chain):
        if below.issuer != above.subject:
            subject = above.subject.rfc4514_string()
            problems.append(
                f"the chain is out of order at {subject}; the site's certificate comes first, and "
                "each certificate is signed by the next"
            )
    return problems


def _key_problems(site: x509.Certificate, key: str) -> list[str]:
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except TypeError:
        return ["the key has a passphrase"]
    except ValueError:
        return ["the key is not a PEM file (-----BEGIN PRIVATE KEY-----)"]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != site.public_key().public_bytes(*form):
        return ["the key does not belong to the certificate"]
    return []


def _names_of(site: x509.Certificate) -> list[str]:
    try:
        names = site.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _covers(names: list[str], name: str) -> bool:
    name = normalize_name(name)
    return bool({name, f"*.{name.partition('.')[2]}"} & {one.lower() for one in names})


def certificate_names(domains: list[str]) -> list[str]:
    """Return the names of the certificate for a site's domains, without duplicates.

    Let's Encrypt rejects a name that a wildcard of the same certificate covers.
    """
    names = list(dict.fromkeys(map(normalize_name, domains)))
    return [name for name in names if not _covers([one for one in names if one != name], name)]


def certificate_checks(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the checks of a role's certificate settings, for the filter `problems`."""
    checks = [
        _check(
            "certificates_acme_dns_api",
            re.match(r"https?://[^\s\"]+\Z", inputs["api"]),
            "must be a URL",
            "https://api.digitalocean.com",
            inputs["api"],
        ),
        _check(
            "certificates_acme_dns_resolvers",
            all(re.match(r"\S+:\d+\Z", one) for one in inputs["resolvers"]),
            "must be addresses with a port",
            ["1.1.1.1:53"],
            inputs["resolvers"],
        ),
        _check(
            "certificates_acme_dns_propagation_timeout",
            10 <= int(inputs["propagation_timeout"]) <= 600,
            "must be 10 to 600 seconds",
            120,
            inputs["propagation_timeout"],
        ),
    ]
    if inputs["source"] == "provided":
        checks += _provided_checks(inputs["certificate"], inputs["key"], inputs["domains"])
    elif inputs["source"] == "acme":
        checks += _acme_checks(inputs)
    return checks


def _check(name: str, ok: Any, reason: str, example: Any, *value: Any) -> dict[str, Any]:
    check = {"variable": name, "ok": bool(ok), "reason": reason, "example": example}
    return check | ({"value": value[0]} if value else {})


def _provided_checks(certificate: str, key: str, domains: list[str]) -> list[dict[str, Any]]:
    reason = "and certificates_provided_key must be files on the controller, or texts in PEM"
    found = bool(certificate and key)
    if found:
        problems = certificate_problems(certificate, key, domains)
        reason = f"and certificates_provided_key cannot serve the site: {'; '.join(problems)}"
        found = not problems
    example = "files/shop.example.org.pem"
    return [_check("certificates_provided_certificate", found, reason, example)]


def _acme_checks(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    domains, challenge = inputs["domains"], inputs["challenge"]
    not_public = [name for name in domains if re.match(r"[0-9.]+$|.*:|[^.]+\Z", name)]
    reserved = [name for name in domains if RESERVED.match(name)]
    if "letsencrypt.org" not in inputs["directory"]:
        reserved = []
    wildcards = [name for name in domains if name.startswith("*")]
    needs_dns = ""
    if wildcards:
        needs_dns = f"since app_domains has {', '.join(wildcards)}, which http-01 cannot verify"
    elif len(inputs["edge_hosts"]) > 1:
        hosts = ", ".join(inputs["edge_hosts"])
        needs_dns = f"with several hosts in group edge ({hosts}): any of them may get the challenge"
    return [
        _check(
            "certificates_acme_email",
            re.match(r"[^@\s]+@[^@\s]+[.][^@\s]+\Z", inputs["email"]),
            "must be your email address, which the ACME server stores with the account",
            "ada@shop.example.org",
            inputs["email"],
        ),
        _check(
            "app_domains",
            not not_public,
            "must be public names if app_certificate is acme; use selfsigned for addresses and "
            "localhost",
            ["shop.example.org"],
            not_public,
        ),
        _check(
            "app_domains",
            not reserved,
            "must be your own names, because Let's Encrypt does not certify reserved ones",
            ["www.your-domain.org"],
            reserved,
        ),
        _check(
            "certificates_acme_challenge",
            challenge == "dns-01" or not needs_dns,
            f"must be dns-01 {needs_dns}",
            "dns-01",
            challenge,
        ),
        _check(
            "certificates_acme_dns_token",
            challenge != "dns-01" or re.match(r"\S{16,}\Z", inputs["token"]),
            "must be a token of DigitalOcean's API if certificates_acme_challenge is dns-01",
            "{{ vault_dns_token }}",
        ),
        _check(
            "certificates_acme_directory",
            re.match(r"https://[^\s\"]+\Z", inputs["directory"]),
            "must be a URL with https",
            "https://acme-v02.api.letsencrypt.org/directory",
            inputs["directory"],
        ),
        _check(
            "certificates_acme_ca",
            not inputs["ca"] or inputs["ca_found"],
            "must be a file on the controller, or empty",
            "files/ca.pem",
            inputs["ca"],
        ),
    ]


def certificate_directory(parts: list[Any]) -> str:
    """Return the name of a certificate's directory: its source, and a hash of all its parts."""
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return f"{parts[0]}-{digest[:16]}"


def lego_command(names: list[str], options: dict[str, Any]) -> list[str]:
    """Return the command that requests a certificate for names from an ACME server."""
    command = ["lego", "--accept-tos", "--path", options["path"]]
    command += ["--server", options["server"], "--email", options["email"]]
    command += ["--key-type", "rsa2048" if options["key"] == "rsa" else "ec256"]
    command += [word for name in names for word in ("--domains", name)]
    if options["challenge"] == "dns-01":
        command += ["--dns", "digitalocean"]
        command += [word for one in options["resolvers"] for word in ("--dns.resolvers", one)]
    else:
        command += ["--http", "--http.webroot", options["webroot"]]
    return [*command, "run"]


def subject_alt_names(names: list[str]) -> list[str]:
    """Return names and addresses as `DNS:` and `IP:` subject alternative names."""
    return [f"{'IP' if _is_address(name) else 'DNS'}:{normalize_name(name)}" for name in names]


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return False


def normalize_name(name: str) -> str:
    """Return a domain in lower case and an IPv6 address without brackets."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "certificate_problems": certificate_problems,
            "certificate_checks": certificate_checks,
            "certificate_directory": certificate_directory,
            "certificate_names": certificate_names,
            "lego_command": lego_command,
            "subject_alt_names": subject_alt_names,
        }
