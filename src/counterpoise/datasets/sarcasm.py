"""Sarcasm: tweets with a picture, sarcastic or not."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import ClassVar

from .base import Row
from .text_image import Posts, TextImage, lines, read_text

GIVE_AWAY = frozenset(
    ["sarcasm", "sarcastic", "reposting", "<url>", "joke", "humour", "humor", "jokes", "irony", "ironic", "exgag"]
)


class Sarcasm(TextImage):
    """The multimodal sarcasm set (Cai, Cai and Wan, ACL 2019).

    Training tweets with one of eleven give-away words are left out, as its authors do: 19,816 of
    29,040 stay. The label is the last entry of a line: for validation and test that of human readers,
    not that of the hashtag.
    """

    name = "sarcasm"
    title = "Multimodal sarcasm in Twitter"
    source = (
        "https://github.com/headacheboy/data-of-multimodal-sarcasm-detection (lists: text/train.txt, valid2.txt, "
        "test2.txt; its README links the pictures, folder dataset_image)"
    )
    licence = "none stated; tweets and pictures belong to their authors and are not to be passed on"
    citation = (
        "Y. Cai, H. Cai and X. Wan, Multi-Modal Sarcasm Detection in Twitter with Hierarchical Fusion Model, ACL 2019"
    )
    classes = ("literal", "sarcastic")
    splits: ClassVar[dict[str, str]] = {
        "official": "the authors' lists without the give-away words, 19816, 2410 and 2409; labels of human readers"
    }
    lists: ClassVar[dict[str, str]] = {
        "train": "88c5ac8c2ffa32fff70526459b4711d63c3809d890a67029ad824081199e9d71",
        "val": "33ea728f193fd844c7a4b6aa97cfa4b33077c2195117ae51c0fc5c3b3c26abde",
        "test": "48b96a11be9d09164e3088e418e173e6d23405b26932c744ceb7389406ab8380",
    }
    list_names = (
        ("train.txt", "valid2.txt", "test2.txt"),
        ("train.json", "valid.json", "test.json"),
        ("train.json", "val.json", "test.json"),
    )
    picture_folders = ("dataset_image", "images")
    cleaning = "caption"
    pieces = 128

    def entries(self, path: Path, part: str) -> list[Row]:
        read = parse_json if path.suffix == ".json" else parse
        names = {str(i): name for i, name in enumerate(self.classes)}
        return [
            Row(name, names.get(label, label), part, facts={"text": text, "picture": f"{name}.jpg"})
            for name, text, label in read(path)
        ]

    def rows(self, raw: Posts, split: str) -> list[Row]:
        return [
            row
            for part in ("train", "val", "test")
            for row in raw.entries[part]
            if part != "train" or not gives_away(row.facts["text"])
        ]

    def checksums(self, raw: Posts) -> dict[str, str]:
        rows = self.rows(raw, self.default_split)
        return {part: digest([row for row in rows if row.part == part]) for part in raw.lists}

    def published(self, split: str) -> dict[str, dict[str, int]]:
        numbers = {"train": (11174, 8642), "val": (1451, 959), "test": (1450, 959)}
        return {part: dict(zip(self.classes, counts, strict=True)) for part, counts in numbers.items()}

    def notes(self, raw: Posts, split: str) -> list[str]:
        left = sum(gives_away(row.facts["text"]) for row in raw.entries["train"])
        return [f"training tweets with a give-away word, not used: {left} of {len(raw.entries['train'])}"]


def gives_away(text: str) -> bool:
    """Whether a tweet has one of the words that its collection was searched by, or a link."""
    return not GIVE_AWAY.isdisjoint(text.split())


def digest(rows: list[Row]) -> str:
    """SHA-256 of a list's ids and labels, whatever its form and order."""
    return hashlib.sha256("".join(sorted(f"{row.id} {row.label}\n" for row in rows)).encode()).hexdigest()


def parse(path: Path) -> list[tuple[str, str, str]]:
    """(id, text, label) of the lines ``[id, text, label]`` or ``[id, text, hashtag label, label]``.

    Raises:
        ValueError: a line is no such Python list.
    """
    samples = []
    for place, line in lines(path):
        try:
            values = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{place}: no Python list [id, text, label]: {line[:80]!r}.") from error
        if not isinstance(values, list) or len(values) not in (3, 4) or not all(isinstance(v, str) for v in values[:2]):
            raise ValueError(f"{place}: a list [id, text, label], perhaps with two labels; got {line[:80]!r}.")
        samples.append((values[0].strip(), values[1], str(values[-1]).strip()))
    return samples


def parse_json(path: Path) -> list[tuple[str, str, str]]:
    """(id, text, label) of a list of objects ``{"image": path, "text": text, "label": 0 or 1}``, as IGM's code reads.

    Raises:
        ValueError: the file is no such list.
    """
    try:
        values = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON: {error.msg}.") from error
    if not isinstance(values, list):
        raise ValueError(f"{path}: a list of objects with image, text and label; got {type(values).__name__}.")
    samples = []
    for i, value in enumerate(values, start=1):
        if not isinstance(value, dict) or not {"image", "text", "label"} <= set(value):
            raise ValueError(f"{path}, object {i}: must have image, text and label; got {str(value)[:80]}.")
        name = PurePosixPath(str(value["image"]).replace("\\", "/")).stem
        samples.append((name, str(value["text"]), str(value["label"]).strip()))
    return samples
