"""Clips with sound and picture: finding them, their sound as WAV, their frames as JPEG."""

from __future__ import annotations

import re
import wave
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from counterpoise.data import ReadError
from counterpoise.data.readers.pictures import uniform
from counterpoise.data.readers.video import check_length
from counterpoise.data.readers.visual import IMAGES

from . import checks, files
from .base import Dataset, Excluded, Row
from .checks import Check

VIDEOS = (".flv", ".mp4", ".mkv", ".webm", ".avi", ".mov")
LEAST = 3  # frames taken from a video
LFS = b"version https://git-lfs"


@dataclass
class Clips:
    """Where the parts of every clip are.

    Attributes:
        root: the folder searched.
        sound: key -> WAV files.
        video: key -> video files.
        frames: key -> folders of pictures.
    """

    root: Path
    sound: dict[Hashable, list[Path]] = field(default_factory=dict)
    video: dict[Hashable, list[Path]] = field(default_factory=dict)
    frames: dict[Hashable, list[Path]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sound or self.video or self.frames)


def find(root: Path, key: Callable[[str], Hashable | None]) -> Clips:
    """Every WAV, video and folder of pictures below ``root`` whose name has a key, at any depth."""
    clips = Clips(root)
    for folder, _, names in files.walk(root):
        for name in names:
            path = folder / name
            kind = clips.sound if path.suffix.lower() == ".wav" else clips.video
            if path.suffix.lower() in (".wav", *VIDEOS) and (clip := key(path.stem)) is not None:
                kind.setdefault(clip, []).append(path)
        if any(name.lower().endswith(IMAGES) for name in names) and (clip := key(folder.name)) is not None:
            clips.frames.setdefault(clip, []).append(folder)
    return clips


class Clipped(Dataset):
    """A data set of clips: a WAV or the sound of the video, and a folder of frames or the video to take them from.

    A subclass says by `keys` which names of files belong to a sample.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio", "visual")
    measures: ClassVar[tuple[str, ...]] = ("seconds", "frames")
    layout: ClassVar[str]
    """What the raw folder holds, for messages."""
    durations: ClassVar[tuple[float, float]]
    """Shortest and longest clip that is plausible, in seconds."""
    needed: ClassVar[int]
    """Frames that the published preprocessing asks for, at least."""

    def key(self, name: str) -> Hashable | None:
        """What identifies a clip in the name of a file, without its ending, or of a folder; None for other names."""
        raise NotImplementedError

    def keys(self, row: Row) -> Iterable[Hashable]:
        """The keys under which the files of a sample may be found, best first."""
        return [self.key(row.id)]

    def scan(self, root: Path) -> Clips:
        clips = find(root, self.key)
        if not clips:
            raise self.lacking(f"clip under {root}", f"Expected: {self.layout}.")
        for what, there in (("sound", clips.sound or clips.video), ("picture", clips.video or clips.frames)):
            if not there:
                raise self.lacking(f"{what} of any clip under {root}", f"Expected: {self.layout}.")
        return clips

    def convert(self, raw: Clips, row: Row, out: Path) -> dict[str, str]:
        sound, video, frames = (self._one_of(kind, row) for kind in (raw.sound, raw.video, raw.frames))
        if not (sound or video or frames):
            raise Excluded(f"vanished: nothing named {row.id} under {raw.root}")
        for what, there in (("sound", sound or video), ("picture", frames or video)):
            if there is None:
                raise Excluded(f"no {what}: only {sound or frames}")
        target = out / "audio" / f"{row.id}.wav"
        if not target.is_file():
            if sound is not None:
                whole_sound(sound)
                files.place(sound, target)
            elif video is not None:
                extract_sound(video, target)
        pictures = out / "frames" / row.id
        if not pictures.is_dir():
            if frames is not None:
                place_frames(frames, pictures, self.needed)
            elif video is not None:
                extract_frames(video, pictures)
        return {
            "audio": f"audio/{row.id}.wav",
            "visual": f"frames/{row.id}",
            "seconds": f"{seconds(target):.3f}",
            "frames": str(len(list(pictures.iterdir()))),
        }

    def further(self, out: Path, samples: Sequence[Mapping[str, str]]) -> Iterator[Check]:
        yield checks.between("seconds of sound per clip", (float(row["seconds"]) for row in samples), *self.durations)
        yield checks.between("frames per clip", (int(row["frames"]) for row in samples), self.needed, float("inf"))
        wrong = [r["id"] for r in samples if len(_pictures(out / r["visual"])) != int(r["frames"])]
        more = f", first {wrong[0]}" if wrong else ""
        yield Check("clips whose frames on disk changed", "0", f"{len(wrong)}{more}", not wrong)

    def _one_of(self, kind: Mapping[Hashable, list[Path]], row: Row) -> Path | None:
        files: list[Path] = next((kind[k] for k in self.keys(row) if k in kind), [])
        files = sorted(files, key=lambda p: VIDEOS.index(p.suffix.lower()) if p.suffix.lower() in VIDEOS else 0)
        same = [path for path in files if path.suffix.lower() == files[0].suffix.lower()]
        if len(same) > 1 and len({_size(path) for path in same}) > 1:
            raise Excluded(f"ambiguous: {same[0]} and {same[1]} differ")
        return files[0] if files else None


def _size(path: Path) -> tuple[int, ...]:
    return tuple(file.stat().st_size for file in (_pictures(path) if path.is_dir() else [path]) if file.exists())


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith("."))


def _not_lfs(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS))
    except OSError as error:  # a link that leads nowhere or to itself, no permission
        raise Excluded(f"unreadable: {path}: {error.strerror}") from error
    if start == LFS:
        raise Excluded(f"not downloaded: {path} is a Git LFS pointer; run `git lfs pull` in its repository")
    if not start:
        raise Excluded(f"damaged: {path} is empty (0 bytes)")


def seconds(path: Path) -> float:
    """Length of a sound file by its header."""
    import soundfile

    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise Excluded(f"damaged: {path}: no readable sound: {error.error_string}") from error
    return info.frames / info.samplerate


def whole_sound(path: Path) -> None:
    """`Excluded` unless every sample that a WAV file announces is there."""
    from counterpoise.data.readers.sound import sound_chunk

    _not_lfs(path)
    try:
        with path.open("rb") as file:
            sound_chunk(file, path.stat().st_size, str(path))
    except ReadError as error:
        raise Excluded(f"damaged: {error}") from error
    if seconds(path) == 0:
        raise Excluded(f"damaged: {path}: holds no sound (0 samples)")


def extract_sound(video: Path, target: Path) -> None:
    """The first sound stream of a video as 16-bit mono WAV at its own rate."""
    import av
    from av.error import FFmpegError

    _not_lfs(video)
    with files.replacing(target) as temporary:
        try:
            with av.open(str(video)) as container:
                if not container.streams.audio:
                    raise Excluded(f"no sound: {video} has no sound stream and there is no WAV")
                stream = container.streams.audio[0]
                resampler = av.AudioResampler(format="s16", layout="mono", rate=stream.rate)
                with wave.open(str(temporary), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(stream.rate)
                    for frame in [*container.decode(stream), None]:  # None flushes
                        for part in resampler.resample(frame):
                            file.writeframes(part.to_ndarray().tobytes())
        except FFmpegError as error:
            raise Excluded(f"damaged: {video}: {error.strerror}") from error
        if seconds(temporary) == 0:
            raise Excluded(f"damaged: {video}: holds no sound (0 samples)")


def place_frames(folder: Path, target: Path, needed: int) -> None:
    """Frames that are extracted already, under the names they have."""
    pictures = _pictures(folder)
    if len(pictures) < needed:
        raise Excluded(f"too few frames: {folder} holds {len(pictures)}, {needed} are needed")
    with files.replacing(target) as temporary:
        temporary.mkdir()
        for picture in pictures:
            _not_lfs(picture)
            files.link(picture, temporary / picture.name)


def extract_frames(video: Path, target: Path) -> None:
    """One frame per second, and at least three: ``%05d.jpg``, the number being that of the frame in the video.

    As in the preprocessing of OGM-GE, a second is the whole part of the frame rate. A clip that gives
    fewer than three frames so gives the middles of three equal stretches instead.
    """
    from av.error import FFmpegError

    _not_lfs(video)
    try:
        check_length(str(video))
        frames, total = _decode(video, None)
        if len(frames) < LEAST <= total:
            frames, total = _decode(video, uniform(LEAST, total))
    except FFmpegError as error:
        raise Excluded(f"damaged: {video}: no readable video: {error.strerror}") from error
    except ReadError as error:
        raise Excluded(f"damaged: {error}") from error
    if total < LEAST:
        raise Excluded(f"too few frames: {video} holds {total}, {LEAST} are needed")
    with files.replacing(target) as temporary:
        temporary.mkdir()
        for index, image in frames:
            image.save(temporary / f"{index:05d}.jpg", quality=95)


def _decode(video: Path, wanted: Sequence[int] | None) -> tuple[list[tuple[int, Any]], int]:
    """The frames at some positions, or one per second, with their positions; and how many there are in all."""
    import av

    kept: list[tuple[int, Any]] = []
    total = 0
    with av.open(str(video)) as container:
        if not container.streams.video:
            raise Excluded(f"no picture: {video} has no video stream")
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        step = max(1, int(stream.average_rate or 25))
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise Excluded(f"damaged: {video}: truncated or damaged after frame {total}")
            for frame in packet.decode():
                if total % step == 0 if wanted is None else total in wanted:
                    kept.append((total, frame.to_image()))
                total += 1
    return kept, total


def stem_of(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """A whole-name match."""
    return re.compile(pattern).fullmatch
