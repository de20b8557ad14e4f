"""Write domain names as the DNS knows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def dns_names(names: Iterable[str]) -> list[str]:
    """Return the names with each part that is not ASCII as its `xn--` name (IDNA 2008)."""
    return [".".join(map(_label, str(name).split("."))) for name in names]


def _label(text: str) -> str:
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFC", text.lower())
    return "xn--" + plain.encode("punycode").decode("ascii")


class FilterModule:
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, object]:
        """Return the filters of this file by name."""
        return {"dns_names": dns_names}
