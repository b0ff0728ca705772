"""Readers: one cell of a table to one tensor, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from counterpoise.data.readers.array import Array
from counterpoise.data.readers.audio import Audio
from counterpoise.data.readers.base import Reader, ReadError, without_window
from counterpoise.data.readers.clip import Clip, Flow
from counterpoise.data.readers.text import Text
from counterpoise.data.readers.video import Video
from counterpoise.data.readers.visual import Frames, Image

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
    "Text",
    "Video",
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
}


def guess(cells: Sequence[str], root: str | Path = ".") -> str:
    """The name of the reader that fits most of some cells of a column.

    By file ending; a folder, or a path without ending, means ``frames``; anything else is ``text``.
    Most and not all, so that one misspelt cell is reported as what it is, a bad cell.

    Args:
        cells: sample values of the column; empty ones are ignored.
        root: what relative paths start from.

    Raises:
        ValueError: every cell is empty.
    """
    votes = Counter(_guess_one(cell.strip(), Path(root)) for cell in cells if cell.strip())
    if not votes:
        raise ValueError("Cannot tell what a column holds whose cells are all empty; name its reader.")
    return votes.most_common(1)[0][0]


def _guess_one(cell: str, root: Path) -> str:
    ending = Path(without_window(cell)).suffix.lower()
    for name, reader in READERS.items():
        if ending and ending in reader.extensions:
            return name
    try:
        is_folder = (root / cell).is_dir()
    except (OSError, ValueError):  # a text may be longer than any path, or hold a zero byte
        is_folder = False
    path_like = "/" in cell and not any(c.isspace() for c in cell) and "://" not in cell
    return "frames" if is_folder or path_like else "text"
