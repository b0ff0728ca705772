"""Writes the method table into the pages that show it: ``make docs``."""

from __future__ import annotations

import re
from pathlib import Path

from counterpoise.cli.methods import markdown

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/methods/README.md")
BLOCK = re.compile(r"(<!-- methods -->\n).*?(<!-- /methods -->)", re.DOTALL)


def page(name: str) -> str:
    """The text of a page with the table as it is now; links are relative to the page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    folder = Path(name).parent.as_posix()
    table = markdown() if folder == "." else markdown().replace(f"]({folder}/", "](")
    filled, count = BLOCK.subn(lambda found: f"{found[1]}{table}\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"{name} must hold <!-- methods --> and <!-- /methods --> once; found {count} such blocks.")
    return filled


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(page(name), encoding="utf-8")
