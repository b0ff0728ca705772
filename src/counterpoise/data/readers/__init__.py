"""Readers: one cell of a table to one tensor, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from counterpoise.data.readers.array import Array
from counterpoise.data.readers.audio import Audio
from counterpoise.data.readers.base import Reader, ReadError, without_window
from counterpoise.data.readers.clip import Clip, Flow
from counterpoise.data.readers.guessing import looks
from counterpoise.data.readers.tabular import Tabular
from counterpoise.data.readers.text import Text
from counterpoise.data.readers.video import Video
from counterpoise.data.readers.visual import Frames, Image
from counterpoise.data.readers.waveform import Waveform

__all__ = [
    "READERS",
    "Array",
    "Audio",
    "Clip",
    "Flow",
    "Frames",
    "Image",
    "ReadError",
    "Reader",
    "Tabular",
    "Text",
    "Video",
    "Waveform",
    "guess",
]

READERS: dict[str, type[Reader]] = {
    "audio": Audio,
    "image": Image,
    "frames": Frames,
    "video": Video,
    "text": Text,
    "array": Array,
    "clip": Clip,
    "flow": Flow,
    "tabular": Tabular,
    "waveform": Waveform,
}
"""The readers of columns, by the names that options and configurations take."""


def guess(cells: Sequence[str], root: str | Path = ".") -> str:
    """The name of the reader that fits most of some cells of a column.

    By file ending; ``frames`` where most cells are paths and some of them are folders that are there; else ``text``.
    Most and not all, so that one misspelt cell is reported as what it is, a bad cell. What looks like a file is
    never taken for a text, nor are numbers and dates. Empty cells, and what other programs write into these
    (``n/a``, say), are ignored.

    Args:
        cells: sample values of the column.
        root: what relative paths start from.

    Raises:
        ValueError: no reader fits; the message says why, as what the cells do ("are all numbers").
    """
    kinds = {cell: _guess_one(cell.strip(), Path(root)) for cell in set(cells)}
    votes = Counter(kinds[cell] for cell in cells if kinds[cell] != "missing")
    if not votes:
        raise ValueError("are all empty" + (" or such as 'n/a'" if any(map(str.strip, cells)) else ""))
    if votes["folder"]:
        votes["frames"] = votes.pop("folder") + votes.pop("path", 0)
    kind = votes.most_common(1)[0][0]
    wrong = {"number": "are numbers or dates", "path": "look like files that no reader takes, or folders not there"}
    if kind in wrong:
        raise ValueError(f"{wrong[kind]}, as {_quoted(next(cell for cell in cells if kinds[cell] == kind))}")
    if kind == "text":
        files = [c for c in cells if kinds[c] != "text" and looks(c.strip(), Path(root)) in ("path", "folder")]
        if len(files) * 10 > votes.total():
            raise ValueError(f"are partly texts and partly files, as {_quoted(files[0])}")
    return kind


def _guess_one(cell: str, root: Path) -> str:
    ending = Path(without_window(cell)).suffix.lower()
    return next((name for name, r in READERS.items() if ending and ending in r.extensions), looks(cell, root))


def _quoted(cell: str) -> str:
    return repr(cell if len(cell) <= 60 else cell[:57] + "...")
