"""Texts with a picture: the user's own lists, and the folder with the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from counterpoise.data import Image, Reader, Text

from . import files
from .base import Dataset, Excluded, Row

_MISSING = "no picture"


@dataclass(frozen=True)
class Posts:
    """What was found.

    Attributes:
        lists: part -> the list of its samples.
        pictures: name of a file -> where it is.
        entries: part -> samples of the list, read once.
    """

    lists: Mapping[str, Path]
    pictures: Mapping[str, Path]
    entries: Mapping[str, Sequence[Row]]


class TextImage(Dataset):
    """A data set of short texts with one picture each.

    A subclass writes `entries`; a row's ``facts`` are its "text" and the file name of its "picture".
    """

    modalities: ClassVar[tuple[str, ...]] = ("text", "image")
    list_names: ClassVar[tuple[tuple[str, str, str], ...]]
    """Names of the lists for training, validation and test, each way they are published."""
    picture_folders: ClassVar[tuple[str, ...]]
    """Names that the folder with the pictures may have."""
    cleaning: ClassVar[str]
    pieces: ClassVar[int]
    """Token numbers that a text is cut or padded to."""

    def entries(self, path: Path, part: str) -> list[Row]:
        """The samples of one list.

        Raises:
            ValueError: a line is not as published; with its number.
        """
        raise NotImplementedError

    def scan(self, root: Path) -> Posts:
        lists = self._lists(root)
        folder = next((f for f, _, _ in files.walk(root) if f.name in self.picture_folders), None)
        if folder is None:
            raise self.lacking(f"folder {' or '.join(self.picture_folders)} below {root}", "It holds the pictures.")
        pictures = {name: f / name for f, _, names in files.walk(folder) for name in names}
        return Posts(lists, pictures, {part: self.entries(path, part) for part, path in lists.items()})

    def _lists(self, root: Path) -> dict[str, Path]:
        folders: list[dict[str, Path]] = []
        for names in self.list_names:
            folders = folders or [
                {part: folder / name for part, name in zip(("train", "val", "test"), names, strict=True)}
                for folder, _, there in files.walk(root)
                if set(names) <= set(there)
            ]
        if len(folders) > 1:  # TomBERT keeps Twitter2017 in a folder beside it
            own = [lists for lists in folders if self.name in str(lists["train"].relative_to(root)).lower()]
            folders = own or folders
        if not folders:
            ways = " or ".join(", ".join(names) for names in self.list_names)
            raise self.lacking(f"folder below {root} that holds the lists {ways}", "They come without a licence.")
        if len(folders) > 1:
            where = ", ".join(str(lists["train"].parent) for lists in folders)
            raise ValueError(f"{self.name}: more than one folder below {root} holds lists: {where}. Leave one there.")
        return folders[0]

    def convert(self, raw: Posts, row: Row, out: Path) -> dict[str, str]:
        name = row.facts["picture"]
        source = raw.pictures.get(name)
        if source is None:
            raise Excluded(f"{_MISSING}: there is no {name}")
        cell = f"images/{name}"
        if not (out / cell).exists():
            Image().decode(str(source))  # a damaged one is found here and not in training
            files.place(source, out / cell)
        return {"text": row.facts["text"], "image": cell}

    def readers(self) -> dict[str, Reader]:
        text = Text("bert-base-uncased", length=self.pieces, words=50, cleaning=self.cleaning)  # pyright: ignore[reportArgumentType]
        image = Image(scale=(0.5, 1.0), interpolation="bicubic", normalize="clip", randaugment=(2, 7))
        return {"text": text, "image": image}

    def encoders(self) -> dict[str, tuple[str, dict[str, Any]]]:
        network = {"class_path": "ResNet50", "init_args": {"weights": "IMAGENET1K_V1", "output": "logits"}}
        return {
            "text": ("Transformers", {"name_or_path": "bert-base-uncased"}),
            "image": ("Projected", {"encoder": network, "dim": 768}),
        }


def read_text(path: Path) -> str:
    """A list as text; ValueError when it is not UTF-8."""
    return "".join(line for _, line in _decoded(path))


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place for messages, line) of every line that is not blank."""
    for number, line in _decoded(path):
        if line.strip():
            yield f"{path}, line {number}", line.removesuffix("\n").removesuffix("\r")


def _decoded(path: Path) -> Iterator[tuple[int, str]]:
    """Every line with its number; a file of any size is read one line at a time."""
    with path.open("rb") as file:  # not as text: tweets hold other line separators of Unicode
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8, which the list was "
                    "published in. A program has saved it in another encoding: take the original file."
                ) from error
