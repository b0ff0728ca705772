"""What a cell of a table looks like, when nobody says how its column is to be read."""

from __future__ import annotations

import re
from pathlib import Path

MISSING = ("", "-", "--", "?", "#n/a", "<na>", "n.a.", "n/a", "na", "nan", "nat", "nil", "none", "null")
"""What other programs write into empty cells, in lower case."""

_WORDS_OF_DATES = re.compile(
    r"jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?|(mon|tues?|wed(nes)?|thu(rs?)?|fri|sat(ur)?|sun)(day)?|[ap]m?|utc|gmt|[tzw]",
    re.IGNORECASE,
)
_ENDING = re.compile(r".*[^\s.,;:!?]\.[A-Za-z]\w{0,4}")


def looks(cell: str, root: Path) -> str:
    """``missing``, ``number``, ``folder``, ``path`` or ``text``.

    A number may be a date, and have any punctuation and sign. A path is a file that is there, or one word with a slash
    or with a file ending, and no web address. Only a folder that is there is a folder.

    Args:
        cell: what to look at, without spaces around it.
        root: what relative paths start from.
    """
    if cell.casefold() in MISSING:
        return "missing"
    if is_number(cell):
        return "number"
    try:
        if (root / cell).exists():
            return "folder" if (root / cell).is_dir() else "path"
    except (OSError, ValueError):  # a text may be longer than any path, or hold a zero byte
        return "text"
    if any(c.isdigit() for c in cell) and all(map(_WORDS_OF_DATES.fullmatch, re.findall(r"[^\W\d_]+", cell))):
        return "number"
    one_word = "://" not in cell and not any(c.isspace() for c in cell)
    return "path" if one_word and ("/" in cell or "\\" in cell or _ENDING.fullmatch(cell[-7:])) else "text"


def is_number(cell: str) -> bool:
    """Whether it can be read as one, NaN and infinity too."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
