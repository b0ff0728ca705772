"""CREMA-D: 7,442 acted sentences in six emotions, sound and face."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from counterpoise.data import Audio, Frames, Reader
from counterpoise.data.splitting import holdout

from . import files
from .base import Row
from .media import Clipped, Clips, stem_of

_NAME = stem_of(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}")  # actor, sentence, emotion, level


class CremaD(Clipped):
    """CREMA-D (Cao et al., IEEE TAC 2014), as the papers on imbalance use it.

    The published lists have no validation part, or another repository's (see ``splits``); the test
    part is never used for selection here. 63, 14 and 14 of the 91 actors are for training, validation
    and test in ``speaker``, in the order of the BLAKE2b hash of ``"0 <actor>"``: no such list is published.
    """

    name = "cremad"
    title = "CREMA-D"
    source = "https://github.com/CheyneyComputerScience/CREMA-D (git lfs: the folders AudioWAV and VideoFlash)"
    licence = "Open Database License 1.0, contents under the Database Contents License 1.0"
    citation = (
        "H. Cao et al., CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, "
        "IEEE Transactions on Affective Computing 5(4), 2014"
    )
    classes = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    splits: ClassVar[dict[str, str]] = {
        "ogm": "the lists of OGM-GE, 6698 and 744; validation: 744 of the 6698, as listed by Diagnosing Relearning",
        "mla": "the lists of MLA, 6698 and 744; validation: a tenth of the 6698, every class in proportion",
        "speaker": "no actor in two parts: 63, 14 and 14 of 91; made here, not published",
    }
    lists: ClassVar[dict[str, str]] = {"cremad": "965160e6299f274256c7e3509310cd16a4d55f67e552c9451d25331c55749026"}
    shared_groups: ClassVar[dict[str, int]] = {"ogm": 91, "mla": 91, "speaker": 0}
    layout = "AudioWAV/<clip>.wav and VideoFlash/<clip>.flv (or .mp4), or Image-01-FPS/<clip>/*.jpg for the pictures"
    durations = (0.5, 10.0)
    needed = 1

    _published: ClassVar[dict[str, dict[str, tuple[int, ...]]]] = {  # in the order of `classes`
        "ogm": {
            "train+val": (973, 1148, 1131, 1138, 1142, 1166),
            "val": (114, 123, 140, 133, 129, 105),
            "test": (114, 123, 140, 133, 129, 105),
        },
        "mla": {"train+val": (959, 1158, 1137, 1161, 1143, 1140), "test": (128, 113, 134, 110, 128, 131)},
    }

    def key(self, name: str) -> Hashable | None:
        return name if _NAME(name) else None

    def rows(self, raw: Any, split: str) -> list[Row]:
        listed = files.facts("cremad")
        return [
            Row(entry["id"], entry["label"], part, group=_actor(entry["id"]))
            for entry, part in zip(listed, _parts(listed, split), strict=True)
        ]

    def published(self, split: str) -> dict[str, dict[str, int]]:
        if split in self._published:
            return {k: dict(zip(self.classes, v, strict=True)) for k, v in self._published[split].items()}
        of = Counter((row.part, row.label) for row in self.rows(None, split))
        return {part: {c: of[part, c] for c in self.classes} for part in ("train", "val", "test")}

    def notes(self, raw: Clips, split: str) -> list[str]:
        """Whether lists that lie beside the clips agree with those used."""
        known = {row["id"]: row for row in files.facts("cremad")}
        names = [
            raw.root / folder / f"{part}.csv" for folder in ("", "annotations") for part in ("train", "test", "stat")
        ]
        return [_note(path, known, self.classes) for path in names if path.is_file()]

    def readers(self) -> dict[str, Reader]:
        return {
            "audio": Audio(sample_rate=22050, seconds=3.0, n_fft=512, hop=353, offset=1e-7),
            "visual": Frames(count=1, size=224),
        }

    def encoders(self) -> dict[str, tuple[str, dict[str, Any]]]:
        return {"audio": ("ResNet18", {"channels": 1}), "visual": ("ResNet18", {"channels": 3})}


def _actor(clip: str) -> str:
    return clip[:4]


def _parts(listed: Sequence[dict[str, str]], split: str) -> list[str]:
    """The part of every clip."""
    if split == "ogm":
        return [row["ogm"] for row in listed]
    if split == "speaker":
        actors = sorted(
            {_actor(row["id"]) for row in listed}, key=lambda a: hashlib.blake2b(f"0 {a}".encode()).digest()
        )
        part_of = dict(zip(actors, ["train"] * 63 + ["val"] * 14 + ["test"] * 14, strict=True))
        return [part_of[_actor(row["id"])] for row in listed]
    parts = np.array([row[split] for row in listed])
    train = np.flatnonzero(parts == "train")
    labels = [CremaD.classes.index(listed[i]["label"]) for i in train.tolist()]
    _, held = holdout(labels, 0.1, seed=0)
    parts = parts.astype("<U5")
    parts[train[held]] = "val"
    return parts.tolist()


def _note(path: Path, known: dict[str, dict[str, str]], classes: Sequence[str]) -> str:
    try:
        return _agreement(path, known, classes)
    except (UnicodeDecodeError, csv.Error) as error:
        return f"{path.name} of the raw folder: cannot be read ({error}); not used"


def _agreement(path: Path, known: dict[str, dict[str, str]], classes: Sequence[str]) -> str:
    """One line about a list found with the clips: `train.csv` and `test.csv` of OGM-GE, or its `stat.csv`."""
    with path.open(newline="", encoding="utf-8-sig") as file:  # the published stat.csv starts with a byte order mark
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    if path.stem == "stat":
        same = [row[0] for row in rows] == list(classes)
        return f"{path.name} of the raw folder: " + (
            "the class order used here" if same else "another class order; not used"
        )
    listed = [row[0] for row in rows]
    inside = {i for i, row in known.items() if (row["ogm"] == "test") == (path.stem == "test")}
    same = len(listed) == len(set(listed)) and set(listed) == inside
    same = same and all(len(row) == 2 and known[row[0]]["label"] == row[1] for row in rows)
    twice = len(listed) - len(set(listed))
    detail = f"{len(listed)} rows, {twice} ids twice, {len(set(listed) - set(known))} unknown clips"
    return f"{path.name} of the raw folder: " + (
        "the list of split ogm" if same else f"another list ({detail}); not used"
    )
