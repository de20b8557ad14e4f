"""Where a visitor may be sent after a form."""

from __future__ import annotations

from urllib.parse import urlsplit


def safe_target(target: str | None, fallback: str) -> str:
    r"""Return `target` if it is a path on this host, else `fallback`.

    Refused are other hosts in all the spellings that browsers accept (`//evil`, `/\evil`,
    `https:evil`, a tab within), because the sentence "you are on the right site" must stay true.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return fallback
    if "\\" in target or any(ord(character) < 33 or ord(character) == 127 for character in target):
        return fallback
    try:
        parts = urlsplit(target)
    except ValueError:
        return fallback
    return fallback if parts.scheme or parts.netloc else target
