"""The embedded data set: real handwritten digits, each paired with a synthesised spoken one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from counterpoise._checks import number, spelled, whole
from counterpoise._extras import require

from .arrays import ArraySplit, assemble, shares
from .readers import Audio, Image, Reader
from .split import Splits

RATE, SECONDS, SPEAKERS = 8000, 0.5, 60

# Per word: first and second formant in Hz at its start, middle and end, and how much hiss it starts
# and ends with. Rounded from the vowels of the English digits; "three" and "seven" share vowels with
# others, so some words are easy to confuse, as in real speech.
_WORDS = np.array(
    [
        # F1               F2                hiss
        [320, 400, 480, 1900, 1300, 900, 0.5, 0.0],  # zero
        [350, 640, 400, 800, 1200, 1400, 0.0, 0.0],  # one
        [330, 320, 320, 1700, 1100, 900, 0.8, 0.0],  # two
        [400, 340, 300, 1200, 1900, 2300, 0.4, 0.0],  # three
        [400, 560, 480, 900, 850, 1200, 0.4, 0.0],  # four
        [600, 720, 400, 1000, 1250, 2000, 0.4, 0.3],  # five
        [380, 400, 380, 1900, 2000, 1900, 0.9, 0.9],  # six
        [450, 560, 450, 1700, 1700, 1400, 0.9, 0.0],  # seven
        [480, 420, 320, 1900, 2100, 2300, 0.0, 0.6],  # eight
        [600, 720, 380, 1000, 1300, 2100, 0.0, 0.0],  # nine
    ],
    dtype=np.float32,
)


class _Digits(NamedTuple):
    waves: np.ndarray  # (n, samples) int16
    pictures: np.ndarray  # (n, 8, 8) uint8
    target: np.ndarray  # (n,)
    speaker: np.ndarray  # (n,)
    present: dict[str, np.ndarray]  # only where some are absent


def _audio() -> Audio:
    return Audio(sample_rate=RATE, seconds=SECONDS, n_fft=128, hop=250, offset=1e-3)


def _image() -> Image:
    return Image(size=8, channels=1, augment=False, flip=0.0, normalize="none")


def readers() -> dict[str, Reader]:
    """The readers of the two modalities: a spectrogram (1, 65, 17) and a grey image (1, 8, 8)."""
    return {"audio": _audio(), "image": _image()}


@spelled
def digits(
    *,
    seed: int = 0,
    audio_noise: float = 0.3,
    image_noise: float = 0.3,
    absent: float = 0.0,
    size: int | None = None,
    val: float = 0.15,
    test: float = 0.2,
) -> Splits:
    """Handwritten digits (scikit-learn's 1797 scans, 8 x 8) with a spoken one each; nothing is downloaded.

    The waveforms are synthesised: pulses of a speaker's pitch ring at two gliding formants, with hiss
    at the consonants; 60 invented speakers differ in pitch, vocal tract and pace, and none is in two
    parts. They are 16-bit sound and go through the audio reader as any recording does.

    The two noises set the imbalance. By default the image is learned within a few epochs, but its noise
    keeps it near 0.9; the sound takes longer and reaches 0.98 alone. Trained together the image wins the
    race, the sound stays near 0.3, and both together get 0.93: less than the sound alone. That is what
    balanced training is there to repair. ``image_noise=0.6`` makes it worse (image 0.56, together 0.83);
    with ``image_noise=0`` the image alone is at 0.99 and there is nothing to gain. (Validation accuracy
    of two small CNNs with added logits, 15 epochs of SGD at 0.02, one seed.)

    Args:
        seed: of the voices, the noise, what is absent, and the split.
        audio_noise: standard deviation of the noise in relation to that of the voice; 0 for none.
        image_noise: standard deviation of the noise in relation to the range of the grey values; 0 for none.
        absent: share of samples that lack the audio, and as many others the image; below 0.5.
        size: how many digits; all when None.
        val: share for validation.
        test: share for the test.
    """
    made = _make(seed, audio_noise, image_noise, absent, size)
    waves, audio = torch.from_numpy(made.waves).float() / 32768, _audio()
    inputs = {
        "audio": torch.stack([*map(audio.spectrogram, waves)]),
        "image": _image().pixels(torch.from_numpy(made.pictures)[:, None], None),
    }
    present = {m: torch.from_numpy(mask) for m, mask in made.present.items()}
    for m, mask in present.items():
        inputs[m][~mask] = 0
    names = [f"digit{i:04d}" for i in range(len(made.target))]
    classes = [str(c) for c in range(10)]
    target = torch.from_numpy(made.target)
    recorded = {"audio": [(wave, RATE) for wave in made.waves], "image": list(made.pictures)}
    whole = ArraySplit(inputs, target, classes, ids=names, present=present, readers=readers(), recorded=recorded)
    return assemble(whole, shares(made.target, val, test, seed, made.speaker), made.speaker)


def write_digits(
    directory: str | Path,
    *,
    seed: int = 0,
    audio_noise: float = 0.3,
    image_noise: float = 0.3,
    absent: float = 0.0,
    size: int | None = None,
    val: float = 0.15,
    test: float = 0.2,
) -> Path:
    """The same data as files: ``digits.csv``, WAV recordings and PNG images.

    ``Table(write_digits(folder), readers())`` reads what ``digits()`` gives, bit for bit.

    Args:
        directory: is made when missing; files of the same names are replaced.
        seed: see `digits`, as for all other arguments.
        audio_noise: see `digits`.
        image_noise: see `digits`.
        absent: see `digits`.
        size: see `digits`.
        val: see `digits`.
        test: see `digits`.

    Returns:
        Path of the CSV.
    """
    import csv

    made = _make(seed, audio_noise, image_noise, absent, size)  # first: it says which packages are missing
    import soundfile
    from PIL import Image as Pillow

    part = np.empty(len(made.target), dtype=object)
    for name, rows in shares(made.target, val, test, seed, made.speaker).items():
        part[rows] = name
    root = Path(directory).expanduser()
    for m in ("audio", "image"):
        (root / m).mkdir(parents=True, exist_ok=True)
    here = {m: made.present.get(m, np.ones(len(part), bool)) for m in ("audio", "image")}
    with (root / "digits.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "split", "group", "audio", "image"])
        for i, name in enumerate(part):
            cells = [f"audio/{i:04d}.wav" * bool(here["audio"][i]), f"image/{i:04d}.png" * bool(here["image"][i])]
            if cells[0]:
                soundfile.write(root / cells[0], made.waves[i], RATE, subtype="PCM_16")
            if cells[1]:
                Pillow.fromarray(made.pictures[i]).save(root / cells[1])
            table.writerow([f"digit{i:04d}", made.target[i], name, f"speaker{made.speaker[i]:02d}", *cells])
    return root / "digits.csv"


def _make(seed: int, audio_noise: float, image_noise: float, absent: float, size: int | None) -> _Digits:
    require("The embedded data digits", "PIL", "av", "sklearn", "soundfile", "soxr", "torchvision")
    from sklearn.datasets import load_digits

    number("audio_noise", audio_noise, low=0)
    number("image_noise", image_noise, low=0)
    number("absent", absent, low=0, below=0.5)
    grey, target = (np.asarray(values) for values in load_digits(return_X_y=True))
    if size is not None and not 100 <= whole("size", size, low=1) <= len(target):
        raise ValueError(f"size must be in 100..{len(target)}; got {size}.")
    grey, target = grey[:size].reshape(-1, 8, 8) / 16, np.asarray(target[:size], np.int64)
    n = len(target)
    voice, noise, gone, people = (np.random.default_rng([seed, stream]) for stream in range(4))
    speaker = people.integers(0, SPEAKERS, n)
    wave = _speak(target, speaker, people, voice)
    wave += audio_noise * 0.1 * noise.standard_normal(wave.shape, dtype=np.float32)
    grey = grey + image_noise * noise.standard_normal(grey.shape)
    order = gone.permutation(n)
    count = round(absent * n)
    present = {}
    for m, rows in (("audio", order[:count]), ("image", order[count : 2 * count])):
        if count:
            present[m] = np.ones(n, bool)
            present[m][rows] = False
    return _Digits(
        (wave.clip(-1, 1) * 32767).round().astype(np.int16),
        (grey.clip(0, 1) * 255).round().astype(np.uint8),
        target,
        speaker,
        present,
    )


def _speak(
    target: np.ndarray, speaker: np.ndarray, people: np.random.Generator, voice: np.random.Generator
) -> np.ndarray:
    """(n, samples) float32: a word each, root mean square 0.1 while it lasts."""
    n, length = len(target), round(RATE * SECONDS)
    pitch = people.uniform(90, 240, SPEAKERS)[speaker] * voice.uniform(0.93, 1.07, n)
    tract = people.uniform(0.88, 1.14, SPEAKERS)[speaker] * voice.uniform(0.97, 1.03, n)
    lasts = people.uniform(0.24, 0.38, SPEAKERS)[speaker] * voice.uniform(0.9, 1.1, n)
    onset = voice.uniform(0.01, SECONDS - 0.43, n)
    pitch, tract, lasts, onset = (x[:, None].astype(np.float32) for x in (pitch, tract, lasts, onset))
    word = _WORDS[target]
    at = (np.arange(length, dtype=np.float32) / RATE - onset) / lasts  # 0 to 1 while the word lasts
    inside = (at >= 0) & (at <= 1)
    at = at.clip(0, 1)
    envelope = np.sqrt(np.sin(np.pi * at).clip(0, 1)) * inside
    # Seconds since the last pulse of the vocal cords; the pitch falls a little over the word.
    since = np.cumsum(pitch / RATE * (1.06 - 0.12 * at), 1) % 1 / pitch
    wave = np.zeros((n, length), np.float32)
    for start, gain in ((0, 1.0), (3, 0.6)):
        wave += gain * np.sin(2 * np.pi * since * (tract * _glide(at, word[:, start : start + 3])))
    wave *= np.exp(-since / 0.005) * envelope
    hiss = np.diff(voice.standard_normal((n, length + 1), dtype=np.float32), axis=1)  # high frequencies
    wave += 0.5 * hiss * inside * (word[:, 6:7] * np.exp(-((at / 0.15) ** 2)))
    wave += 0.5 * hiss * inside * (word[:, 7:8] * np.exp(-(((1 - at) / 0.15) ** 2)))
    power = (wave**2).sum(1, keepdims=True) / np.maximum(inside.sum(1, keepdims=True), 1)
    return (0.1 * wave / np.sqrt(power)).astype(np.float32)


def _glide(at: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Through three points: at 0, 0.5 and 1."""
    first, middle, last = (points[:, i : i + 1] for i in range(3))
    early, late = np.minimum(2 * at, 1), np.maximum(2 * at - 1, 0)
    return first + (middle - first) * early + (last - middle) * late
