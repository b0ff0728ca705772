"""Twitter2015: sentiment towards a target in a tweet with a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from . import files
from .base import Row
from .text_image import Posts, TextImage, lines

_PLACEHOLDER = "$T$"
_HEADERS = ("#1 Label", "#1 ImageID")  # the test list's is one field short
_FIELDS = ("index", "label", "picture", "sentence", "target")

_FORMS: dict[str, Callable[[str, str], str]] = {
    "aware": lambda sentence, target: f"{target} : {sentence.replace(_PLACEHOLDER, target)}",
    "blind": lambda sentence, target: sentence,
}


class Twitter2015(TextImage):
    """Twitter2015 as TomBERT distributes it (Yu and Jiang, IJCAI 2019).

    The label is the sentiment towards a target that the list puts ``$T$`` for. In the split ``aware``
    the text is the target, a colon, and the sentence with the target in its place. In ``blind`` it is the
    sentence with its placeholder, of which the published cleaning leaves the word "t", so that two
    targets of one tweet have equal texts and may have different labels: what the released code of IGM
    trains on, and comparable to its numbers only.
    """

    name = "twitter2015"
    title = "Twitter2015"
    source = (
        "https://github.com/jefferyYu/TomBERT (lists: absa_data/twitter2015/train.tsv, dev.tsv, test.tsv; its README "
        "links the pictures, folder twitter2015_images)"
    )
    licence = "none stated; tweets and pictures belong to their authors and are not to be passed on"
    citation = "J. Yu and J. Jiang, Adapting BERT for Target-Oriented Multimodal Sentiment Classification, IJCAI 2019"
    classes = ("negative", "neutral", "positive")
    splits: ClassVar[dict[str, str]] = {
        "aware": "the lists of TomBERT, 3179, 1122 and 1037; the text names the target",
        "blind": "the same lists; the text does not tell the target, as in the released code of IGM",
    }
    lists: ClassVar[dict[str, str]] = {
        "train": "ae0877588f155de80fc8858513e881562795fe644b59c808d31af3ded06f31fd",
        "val": "cb0321455406ff7d41e191724d8f8b5507695fc6b9e35e117ab006f962a2aebe",
        "test": "60ffbf389c6adf12425af5199821890b17a15e4544a8557a6f5f34051ec62f2a",
    }
    shared_groups: ClassVar[dict[str, int]] = {"aware": 0, "blind": 0}
    list_names = (("train.tsv", "dev.tsv", "test.tsv"),)
    picture_folders = ("twitter2015_images",)
    cleaning = "letters"
    pieces = 96

    def entries(self, path: Path, part: str) -> list[Row]:
        return [
            Row(f"{part}-{line['index']}", line["label"], part, group=Path(line["picture"]).stem, facts=line)
            for line in parse(path)
        ]

    def rows(self, raw: Posts, split: str) -> list[Row]:
        listed = [row for part in ("train", "val", "test") for row in raw.entries[part]]
        # Both ways of numbering are in use; which one it is shows only in all lists together.
        lowest = -1 if any(row.label == "-1" for row in listed) else 0
        names = {str(lowest + i): name for i, name in enumerate(self.classes)}
        return [
            replace(
                row,
                label=names.get(row.label, row.label),
                facts={**row.facts, "text": _FORMS[split](row.facts["sentence"], row.facts["target"])},
            )
            for row in listed
        ]

    def checksums(self, raw: Posts) -> dict[str, str]:
        return {part: files.sha256(path.read_bytes()) for part, path in raw.lists.items()}

    def published(self, split: str) -> dict[str, dict[str, int]]:
        numbers = {"train": (368, 1883, 928), "val": (149, 670, 303), "test": (113, 607, 317)}
        return {part: dict(zip(self.classes, counts, strict=True)) for part, counts in numbers.items()}


def parse(path: Path) -> list[Mapping[str, str]]:
    """The samples of a list of TomBERT: index, label, picture, sentence, target.

    The lists are tab-separated without quoting, below a header that repeats names and, in the test
    list, misses one; columns are therefore known by their place.

    Raises:
        ValueError: another header, another number of fields, or a sentence without the placeholder.
    """
    (place, header), *rest = list(lines(path)) or [(str(path), "")]
    columns = header.split("\t")
    if columns[0] != "index" or len(columns) < 2 or columns[1] not in _HEADERS:
        raise ValueError(f"{place}: the header must start with 'index', tab, '#1 Label'; got {header[:80]!r}.")
    samples = []
    for place, line in rest:
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != len(_FIELDS):
            raise ValueError(f"{place}: {len(_FIELDS)} tab-separated fields ({', '.join(_FIELDS)}); got {len(fields)}.")
        sample = dict(zip(_FIELDS, fields, strict=True))
        if _PLACEHOLDER not in sample["sentence"]:
            raise ValueError(f"{place}: the sentence must hold the placeholder {_PLACEHOLDER}; got {line[:80]!r}.")
        samples.append(sample)
    return samples
