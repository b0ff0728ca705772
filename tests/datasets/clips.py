"""Sound, video and frames as the published clips have them, and what `prepare` made of them."""

import wave
from pathlib import Path

import numpy as np
from PIL import Image

from counterpoise.datasets import files

RATE = 8000


def write_wav(path: Path, seed: int, seconds: float = 1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(seed).normal(0, 3000, int(RATE * seconds)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(sound.tobytes())


def write_video(path: Path, seed: int, frames: int = 20, sound: bool = False, rate: int = 10):
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        codec = "flv" if path.suffix == ".flv" else "mpeg4"
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        voice = container.add_stream("aac", rate=RATE) if sound else None
        for _ in range(frames):
            picture = np.repeat(np.repeat(random.integers(0, 255, (6, 8, 3), np.uint8), 8, 0), 8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        if voice is not None:
            data = random.normal(0, 0.2, (1, RATE * frames // rate)).astype("f4")
            frame = av.AudioFrame.from_ndarray(data, format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux(voice.encode(frame))
            container.mux(voice.encode())


def write_frames(folder: Path, seed: int, count: int = 3):
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 24, 32, 3), np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{10 * i:05d}.jpg")


def chosen(dataset, per_part: int, split: str | None = None):
    """The first listed clips of each part and class, so many classes per part."""
    found = {}
    for row in dataset.rows(None, split or dataset.default_split):
        found.setdefault((row.part, row.label), row)
    return [found[part, c] for part in ("train", "val", "test") for c in dataset.classes[:per_part]]


def manifest(out) -> list[dict[str, str]]:
    return files.read_table(Path(out) / "manifest.csv")


def reasons(out) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in files.read_table(Path(out) / "excluded.csv")}
