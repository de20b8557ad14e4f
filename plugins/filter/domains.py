"""Normalize domain names."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable


def dns_names(names: Iterable[str]) -> list[str]:
    """Return the names without scheme, port, path, final dot and duplicates.

    Names are in lower case, with labels that are not ASCII in `xn--` form (IDNA 2008). An IPv6
    address is in brackets.
    """
    return list(dict.fromkeys(_name(str(name).strip()) for name in names))


def _name(text: str) -> str:
    text = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://", "", text)
    text = re.split(r"[/?#]", text)[0].rpartition("@")[2]
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        text = re.sub(r"(?<!:):\d*$|(?<=\]):\d*$", "", text).rstrip(".")
        return text.lower() if text.startswith("[") else ".".join(map(_label, text.split(".")))
    return f"[{address}]" if address.version == 6 else str(address)


def _label(text: str) -> str:
    plain = unicodedata.normalize("NFC", text.lower())
    return plain if plain.isascii() else "xn--" + plain.encode("punycode").decode("ascii")


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, object]:
        """Return the filters by name."""
        return {"dns_names": dns_names}
