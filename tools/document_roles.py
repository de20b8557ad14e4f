#!/usr/bin/env python3
"""Write the tables of variables in role READMEs and of renamed variables in UPGRADING.md.

tools/document_roles.py          updates outdated pages and prints their names
tools/document_roles.py --check  only prints outdated pages, and exits with 1 if there are any
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ROLES = ROOT / "roles"
UPGRADING = ROOT / "UPGRADING.md"
RENAMED = ROLES / "app/vars/main.yml"
BETWEEN = re.compile(r"(?<=<!-- variables -->\n).*(?=<!-- /variables -->)", re.DOTALL)
HEADER = "| variable | type | default | meaning |\n|---|---|---|---|\n"
RENAMED_HEADER = "| old name | new name |\n|---|---|\n"


def main() -> int:
    """Update or check all pages. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args().check
    pages = [*sorted(ROLES.glob("*/README.md")), UPGRADING]
    outdated = [path for path in pages if documented(path) != text(path)]
    for path in outdated:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(documented(path), encoding="utf-8")
    return 1 if check and outdated else 0


def text(path: Path) -> str:
    """Return a file's text."""
    return path.read_text(encoding="utf-8")


def documented(page: Path) -> str:
    """Return a page's text with the current table."""
    table = renamed() if page == UPGRADING else options(page.parent)
    result, count = BETWEEN.subn(lambda _: table, text(page))
    if count != 1:
        sys.exit(f"{page} needs the lines <!-- variables --> and <!-- /variables -->, once")
    return result


def options(role: Path) -> str:
    """Return the table of a role's options."""
    specs = yaml.safe_load(text(role / "meta/argument_specs.yml"))["argument_specs"]
    defaults = yaml.safe_load(text(role / "defaults/main.yml")) or {}
    options = {
        name: option | ({"default": defaults[name]} if name in defaults else {})
        for name, option in next(iter(specs.values())).get("options", {}).items()
    }
    return HEADER + "".join(rows(options))


def renamed() -> str:
    """Return the table of renamed variables."""
    names = sorted(yaml.safe_load(text(RENAMED))["__app_renamed"].items())
    return RENAMED_HEADER + "".join(f"| `{old}` | `{new}` |\n" for old, new in names)


def rows(options: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield one row per option, followed by the rows of its suboptions."""
    for name, option in options.items():
        cells = [f"`{prefix}{name}`", kind(option), default(option), meaning(option)]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        inner = f"{prefix}{name}[]." if option.get("type") == "list" else f"{prefix}{name}."
        yield from rows(option.get("options", {}), inner)


def kind(option: dict[str, Any]) -> str:
    """Return an option's type in words."""
    name = option.get("type", "str")
    return f"list of {option['elements']}" if "elements" in option else name


def default(option: dict[str, Any]) -> str:
    """Return an option's default as YAML."""
    if option.get("required"):
        return "**required**"
    if "default" not in option:
        return ""
    value = option["default"]
    plain = isinstance(value, str) and value and "\n" not in value
    written = value if plain else json.dumps(value, ensure_ascii=False)
    return f"`{written}`"


def meaning(option: dict[str, Any]) -> str:
    """Return an option's description on one line, with its choices."""
    description = option["description"]
    sentences = " ".join(description) if isinstance(description, list) else description
    # Outside code, <name> would be HTML.
    pieces = " ".join(sentences.split()).split("`")
    pieces[::2] = [piece.replace("<", "&lt;") for piece in pieces[::2]]
    line = "`".join(pieces)
    if "choices" in option:
        line += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    return line


if __name__ == "__main__":
    sys.exit(main())
