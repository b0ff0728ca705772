"""NVGesture: 25 hand gestures in a car as colour, depth and optical flow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from counterpoise.data import Clip, Flow, Reader
from counterpoise.data.readers.video import check_length, packets

from . import checks, files
from .base import Dataset, Excluded, Row
from .checks import Check
from .flow import horn_schunck
from .text_image import lines

FRAMES = 80  # what the published preprocessing takes of a clip
_EDGE = 256
_NAMES = ("nvgesture_{}_correct_cvpr2016_v2.lst", "nvgesture_{}_correct_v2.lst")
_SENSORS = {"rgb": "color", "depth": "depth"}
_SUBJECT = re.compile(r"subject(\d+)_r\d+$")


@dataclass(frozen=True)
class Gestures:
    """What was found.

    Attributes:
        root: folder of the lists and of ``Video_data``.
        lists: part -> list.
        entries: part -> samples of the list, read once.
        flow: folder of stored optical flow; None when there is none.
    """

    root: Path
    lists: Mapping[str, Path]
    entries: Mapping[str, Sequence[Row]]
    flow: Path | None


class NVGesture(Dataset):
    """NVGesture (Molchanov et al., CVPR 2016), by its second, corrected lists.

    Optical flow is taken from ``Video_data/flow_data/{train,test}/<n>.npy``, arrays (H, W, 2, T) with n the
    place in the list from 0, as the released code of IGM has it. Where that folder is not there, flow is
    computed from the colour frames at 256 x 256 pixels by `flow.horn_schunck` with its default settings
    and stored in half precision: some seconds and 21 MB for each clip.

    There is no published validation part. The manifest names the subject of each clip, so that the
    share which is split off the training part when the table is read holds other people.
    """

    name = "nvgesture"
    title = "NVGesture"
    source = "https://research.nvidia.com/publication/2016-06_online-detection-and-classification-dynamic-hand-gestures"
    licence = "terms of NVIDIA for research; the videos are not to be passed on"
    citation = (
        "P. Molchanov et al., Online Detection and Classification of Dynamic Hand Gestures with Recurrent 3D "
        "Convolutional Neural Networks, CVPR 2016"
    )
    modalities = ("rgb", "depth", "flow")
    classes = tuple(str(i) for i in range(1, 26))
    splits: ClassVar[dict[str, str]] = {
        "official": "the lists of NVIDIA, 1050 and 482; validation: split off by subject when the table is read"
    }
    measures = ("frames",)
    lists: ClassVar[dict[str, str]] = {
        "train": "2fe2edefa1ecba9754d444c3baaeed2e587a6b83447593590d2bf62cb3828de2",
        "test": "83f62b4dfbc15672e06d7bed93dba67540f7cf48030222b6820c9c98899f1a50",
    }
    shared_groups: ClassVar[dict[str, int]] = {"official": 0}

    _published: ClassVar[dict[str, tuple[int, ...]]] = {
        "train": (40, 50, 43, 41, 42, 44, 39, 44, 41, 43, 43, 42, 39, 43, 42, 44, 42, 40, 36, 47, 41, 43, 43, 40, 38),
        "test": (18, 22, 20, 21, 20, 20, 20, 19, 22, 19, 20, 19, 18, 20, 16, 19, 20, 19, 19, 21, 15, 18, 20, 19, 18),
    }

    def scan(self, root: Path) -> Gestures:
        lists = {}
        for part in ("train", "test"):
            names = [name.format(part) for name in _NAMES]
            listing = next((root / name for name in names if (root / name).is_file()), None)
            if listing is None:
                raise self.lacking(f"{' or '.join(names)} in {root}")
            lists[part] = listing
        if not (root / "Video_data").is_dir():
            raise self.lacking(f"folder {root / 'Video_data'}", "It holds class_01/subject3_r0/sk_color.avi and so on.")
        flow = root / "Video_data" / "flow_data"
        entries = {part: parse(path, part) for part, path in lists.items()}
        return Gestures(root, lists, entries, flow if flow.is_dir() else None)

    def rows(self, raw: Gestures, split: str) -> list[Row]:
        return [row for rows in raw.entries.values() for row in rows]

    def checksums(self, raw: Gestures) -> dict[str, str]:
        return {part: digest(rows) for part, rows in raw.entries.items()}

    def published(self, split: str) -> dict[str, dict[str, int]]:
        return {part: dict(zip(self.classes, counts, strict=True)) for part, counts in self._published.items()}

    def convert(self, raw: Gestures, row: Row, out: Path) -> dict[str, str]:
        cells = {}
        for m, sensor in _SENSORS.items():
            name, start, end = row.facts[sensor].split(":")
            video = f"Video_data/{row.id}/{name}.avi"
            cells[m] = f"{video}#{start}:{end}"
            if int(end) - int(start) < FRAMES:
                raise Excluded(f"missing frames: the list names {start} to {end} of {name}, {FRAMES} are needed")
            if not (out / video).exists():
                self._check(raw.root / video, int(end))
                files.place(raw.root / video, out / video)
        cells["flow"] = f"flow/{row.part}/{int(row.facts['place']):05d}.npy"
        if not (out / cells["flow"]).exists():
            self._flow(raw, row, out, cells)
        name, start, end = row.facts["color"].split(":")
        return {**cells, "frames": str(int(end) - int(start))}

    def _check(self, video: Path, end: int) -> None:
        from av.error import FFmpegError

        if not video.is_file():
            raise Excluded(f"no video: there is no {video}")
        check_length(str(video))
        try:
            there = packets(str(video))
        except FFmpegError as error:
            raise Excluded(f"damaged: {video}: no readable video: {error.strerror}") from error
        if there < end:
            raise Excluded(f"missing frames: {video} holds {there}, the list asks for those up to {end}")

    def _flow(self, raw: Gestures, row: Row, out: Path, cells: Mapping[str, str]) -> None:
        target = out / cells["flow"]
        if raw.flow is None:
            grey = Clip(FRAMES, FRAMES, resize=_EDGE, channels=1).decode(str(out / cells["rgb"]))
            flow = horn_schunck(grey[:, 0]).permute(2, 3, 1, 0).numpy().astype(np.float16)
            with files.replacing(target) as temporary, temporary.open("wb") as file:
                np.save(file, flow)
            return
        stored = raw.flow / row.part / f"{row.facts['place']}.npy"
        if not stored.is_file():
            raise Excluded(f"no flow: there is no {stored}, which this list puts in place {row.facts['place']}")
        try:
            shape = np.load(stored, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, OSError) as error:
            raise Excluded(f"damaged: {stored} is no NumPy array that can be read ({error})") from error
        if len(shape) != 4 or shape[2] != 2:
            raise Excluded(f"damaged: {stored} has shape {shape}; flow is stored as (height, width, 2, frames)")
        files.place(stored, target)

    def notes(self, raw: Gestures, split: str) -> list[str]:
        if raw.flow is not None:
            return [f"optical flow: as stored in {raw.flow}"]
        return ["optical flow: computed (Horn and Schunck, coarse to fine), since the raw folder stores none"]

    def further(self, out: Path, samples: Sequence[Mapping[str, str]]) -> Iterable[Check]:
        yield checks.between("frames per clip", (float(row["frames"]) for row in samples), FRAMES, FRAMES)

    def readers(self) -> dict[str, Reader]:
        return {"rgb": Clip(), "depth": Clip(channels=1, normalize="none"), "flow": Flow()}

    def encoders(self) -> dict[str, tuple[str, dict[str, Any]]]:
        # As published they start from checkpoints, which have to be downloaded: `weights` is their path.
        return {m: ("I3D", {"channels": channels}) for m, channels in (("rgb", 3), ("depth", 1), ("flow", 2))}


def parse(path: Path, part: str) -> list[Row]:
    """A list with a line ``path:./Video_data/class_01/subject3_r0 depth:sk_depth:146:226 ... label:1`` for each sample.

    Raises:
        ValueError: a line is not like that.
    """
    return [_row(place, line, part, number) for number, (place, line) in enumerate(lines(path))]


def _row(place: str, line: str, part: str, number: int) -> Row:
    fields = {key: value for key, _, value in (field.partition(":") for field in line.split())}
    name = fields.get("path", "").replace("\\", "/").removeprefix("./").removeprefix("Video_data/").strip("/")
    sensors = {sensor: fields.get(sensor, "") for sensor in _SENSORS.values()}
    subject = _SUBJECT.search(name)
    if subject is None or ".." in name or "label" not in fields or not all(map(_is_window, sensors.values())):
        raise ValueError(
            f"{place}: 'path:./Video_data/class_01/subject3_r0 depth:sk_depth:146:226 color:sk_color:146:226 label:1' "
            f"with the numbers of this clip; got {line[:120]!r}."
        )
    label = str(int(fields["label"])) if fields["label"].isdecimal() else fields["label"]
    return Row(name, label, part, group=f"subject{subject[1]}", facts={**sensors, "place": str(number)})


def _is_window(field: str) -> bool:
    return re.fullmatch(r"\w+:\d+:\d+", field) is not None


def digest(rows: Iterable[Row]) -> str:
    """SHA-256 of the ids and labels of a list, whatever its order and the name of its file."""
    return hashlib.sha256("".join(sorted(f"{row.id} {row.label}\n" for row in rows)).encode()).hexdigest()
