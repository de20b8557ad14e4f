"""Write domain names as the DNS knows them."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable


def dns_names(names: Iterable[str]) -> list[str]:
    """Return the names as the DNS and browsers have them: without scheme, port, path or final dot.

    Letters are small, and a part that is not ASCII is its `xn--` name (IDNA 2008). An IPv6 address
    is in brackets. A name that is there twice is named once.
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
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, object]:
        """Return the filters of this file by name."""
        return {"dns_names": dns_names}
