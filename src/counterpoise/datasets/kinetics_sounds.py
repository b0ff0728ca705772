"""Kinetics-Sounds: 31 classes of Kinetics that can be seen and heard."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, ClassVar

from counterpoise.data import Audio, Frames, Reader

from . import files
from .base import Row
from .media import Clipped, stem_of

# YouTube id, start and end in seconds; the test and validation lists have no end and no leading zeros
_NAME = stem_of(r"([\w-]{11})(?:_(\d{1,6}))?(?:_(\d{1,6}))?")


class KineticsSounds(Clipped):
    """Kinetics-Sounds (Arandjelovic and Zisserman, ICCV 2017) in the lists of OGM-GE and BML.

    Clips that can no longer be downloaded are listed as vanished and counted; numbers on what is left
    are not comparable with the published ones unless the counts agree.
    """

    name = "kinetics_sounds"
    title = "Kinetics-Sounds"
    source = (
        "https://github.com/cvdfoundation/kinetics-dataset (Kinetics-400: unpack train and val; "
        "the clips of other classes do no harm)"
    )
    licence = "lists: Kinetics, Creative Commons Attribution 4.0; the videos belong to their authors"
    citation = "R. Arandjelovic and A. Zisserman, Look, Listen and Learn, ICCV 2017; W. Kay et al., arXiv:1705.06950"
    classes = (
        "blowing_nose", "blowing_out_candles", "bowling", "chopping_wood", "dribbling_basketball", "laughing",
        "mowing_lawn", "playing_accordion", "playing_bagpipes", "playing_bass_guitar", "playing_clarinet",
        "playing_drums", "playing_guitar", "playing_harmonica", "playing_keyboard", "playing_organ", "playing_piano",
        "playing_saxophone", "playing_trombone", "playing_trumpet", "playing_violin", "playing_xylophone",
        "ripping_paper", "shoveling_snow", "shuffling_cards", "singing", "stomping_grapes", "tap_dancing",
        "tapping_guitar", "tapping_pen", "tickling",
    )  # fmt: skip
    splits: ClassVar[dict[str, str]] = {"ogm": "the lists of OGM-GE, 14799 and 2597; validation: the 1320 of BML"}
    lists: ClassVar[dict[str, str]] = {
        "kinetics_sounds": "57290c64d7bc1f48d86ef7f44f15d837f34852a2f655add2ced2c81047baf0d2"
    }
    layout = (
        "clips <id>_<start>_<end>.mp4 at any depth, or train_wav/<id>.wav and test_wav/<id>.wav with "
        "train_img/Image-01-FPS/<id>/*.jpg and test_img/Image-01-FPS/<id>/*.jpg"
    )
    durations = (0.5, 11.0)
    needed = 3

    _published: ClassVar[dict[str, tuple[int, ...]]] = {  # in the order of `classes`
        "train": (
            268, 690, 607, 512, 497, 445, 635, 478, 457, 605, 563, 486, 604, 592, 366, 339,
            333, 489, 653, 538, 654, 386, 281, 493, 395, 672, 197, 523, 433, 354, 254,
        ),
        "val": (
            44, 45, 40, 42, 43, 40, 46, 41, 45, 43, 48, 46, 42, 47, 41, 44,
            44, 44, 39, 41, 42, 49, 40, 44, 37, 38, 47, 43, 43, 42, 30,
        ),
        "test": (
            81, 92, 87, 87, 87, 68, 90, 90, 86, 79, 91, 88, 73, 85, 86, 91,
            82, 84, 90, 90, 83, 91, 80, 92, 79, 66, 85, 84, 91, 76, 63,
        ),
    }  # fmt: skip

    def key(self, name: str) -> Hashable | None:
        match = _NAME(name)
        return (match[1], None if match[2] is None else int(match[2])) if match else None

    def keys(self, row: Row) -> Iterable[Hashable]:
        match = _NAME(row.id)
        assert match is not None
        return [(match[1], int(match[2])), (match[1], None)]

    def rows(self, raw: Any, split: str) -> list[Row]:
        return [Row(r["id"], self.classes[int(r["label"])], r["split"]) for r in files.facts("kinetics_sounds")]

    def published(self, split: str) -> dict[str, dict[str, int]]:
        return {part: dict(zip(self.classes, numbers, strict=True)) for part, numbers in self._published.items()}

    def readers(self) -> dict[str, Reader]:
        return {
            "audio": Audio(sample_rate=35400, seconds=10.0, n_fft=512, hop=353, offset=1e-7),
            "visual": Frames(count=3, size=224, crops="frame"),
        }

    def encoders(self) -> dict[str, tuple[str, dict[str, Any]]]:
        return {"audio": ("ResNet18", {"channels": 1}), "visual": ("ResNet18", {"channels": 3})}
