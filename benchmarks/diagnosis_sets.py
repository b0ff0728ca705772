"""The data sets of ``diagnosis.py``: real ones from a folder, and made-up ones whose answer is known."""

from __future__ import annotations

import csv
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "real"))
import prepare

Arrays = dict[str, np.ndarray]
"""Modality -> (n, ...), and ``y`` and ``split``."""
CLASSES = 4


@dataclass(frozen=True)
class Unit:
    """What is diagnosed once.

    Attributes:
        family: the data that it shares with other units; leave-one-set-out leaves out all of them.
        load: the folder of all sets -> arrays.
        only: the modalities to take; () for all.
    """

    family: str
    load: Callable[[Path], Arrays]
    only: tuple[str, ...] = ()

    def arrays(self, folder: Path) -> Arrays:
        """Of the unit; FileNotFoundError where the raw data are missing."""
        found = self.load(folder)
        return {name: value for name, value in found.items() if not self.only or name in (*self.only, "y", "split")}


# -- real ----------------------------------------------------------------------------------------------
def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(file: Path | IO[bytes], size: tuple[int, int] = (24, 24)) -> np.ndarray:
    """(3, height, width) in [0, 1]."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize(size), np.float32).transpose(2, 0, 1) / 255


def tokens(texts: Iterable[str], split: np.ndarray, length: int = 60, size: int = 4000) -> np.ndarray:
    """(n, length) numbers of the most frequent words of the training rows; 0 is padding."""
    return prepare._numbered([text.lower().split() for text in texts], split == "train", length, size)


def quarter(labels: np.ndarray) -> np.ndarray:
    """(n,) bool: a quarter of the samples of every class, drawn by seed 0."""
    rng, chosen = np.random.default_rng(0), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        chosen[rng.permutation(own)[: len(own) // 4]] = True
    return chosen


def multiview(name: str) -> Callable[[Path], Arrays]:
    """The first of the given splits, a quarter of its training samples for validation."""

    def load(folder: Path) -> Arrays:
        with np.load(folder / "multiview" / f"{name}.npz") as file:
            data = {key: file[key] for key in file.files}
        y, test = data["label"].astype(np.int64), data["split"][0] == 1
        split = np.where(test, "test", "train").astype("<U5")
        train = np.flatnonzero(~test)
        split[train[quarter(y[train])]] = "val"
        return {**{str(view): data[str(view)] for view in data["views"]}, "y": y, "split": split}

    return load


def flipkart(folder: Path) -> Arrays:
    """Names and descriptions of products, and their photographs; three products have none and are left out."""
    source = folder / "flipkart_products"
    table = [row for row in rows(source / "products.csv") if row["image"]]
    y = np.array([int(row["label"]) for row in table])
    split = np.array([row["split"] for row in table])
    return {
        "text": tokens([f"{row['name']} {row['description']}" for row in table], split),
        "image": np.stack([pixels(source / row["image"]) for row in table]),
        "y": y,
        "split": split,
    }


def mvsa(folder: Path) -> Arrays:
    """The published split of the tweets; sentiment of three kinds."""
    source = folder / "mvsa_single"
    table = [row for row in rows(source / "labels.csv") if row["qmf_split"]]
    split = np.array([{"dev": "val"}.get(row["qmf_split"], row["qmf_split"]) for row in table])
    with zipfile.ZipFile(source / "images.zip") as images:
        names = {Path(name).name: name for name in images.namelist()}
        photos = []
        for row in table:
            with images.open(names[f"{row['id']}.jpg"]) as file:
                photos.append(pixels(file))
    y = np.unique([row["label"] for row in table], return_inverse=True)[1]
    return {
        "text": tokens([row["text"] for row in table], split, 30),
        "image": np.stack(photos),
        "y": y,
        "split": split,
    }


def ravdess(folder: Path) -> Arrays:
    """Log-spectrogram of the whole clip in twelve pieces, and the action units of the face; subject-wise folds."""
    import soundfile

    source = folder / "ravdess_av"
    table = rows(source / "clips.csv")
    sounds = []
    for row in table:
        x = soundfile.read(source / row["audio"], dtype="float32")[0]
        hop = len(x) // 12 // 128 * 128
        sounds.append(prepare._spectrogram(x, 128, hop, 12))
    units = [name for name in table[0] if name.startswith("AU")]
    return {
        "sound": np.stack(sounds),
        "face": np.array([[float(row[name]) for name in units] for row in table], np.float32),
        "y": np.array([int(row["label"]) for row in table]),
        "split": np.array([row["split"] for row in table]),
    }


def memes(folder: Path) -> Arrays:
    """Whether a meme smears somebody, the most frequent of its labels; a quarter of training joins validation."""
    source = folder / "propaganda_memes"
    table = rows(source / "memes.csv")
    y = np.array([int("Smears" in row["labels"].split("|")) for row in table])
    split = np.array([row["split"] for row in table])
    train = np.flatnonzero(split == "train")
    split[train[quarter(y[train])]] = "val"
    photos = np.stack([pixels(source / row["image"]) for row in table])
    return {"text": tokens([row["text"] for row in table], split, 30, 2000), "image": photos, "y": y, "split": split}


def utd_mhad(folder: Path) -> Arrays:
    """Skeleton, inertial sensor and depth of 27 actions; subjects 1, 3, 5 train, 7 validates, the even ones test."""
    from scipy.io import loadmat

    files = sorted((folder / "utd_mhad" / "Inertial").glob("*.mat"))
    if not files:
        raise FileNotFoundError(folder / "utd_mhad" / "Inertial")
    kept: dict[str, list[np.ndarray]] = {"skeleton": [], "inertial": [], "depth": []}
    names = [path.name.split("_") for path in files]
    for path in files:
        sensor = loadmat(path)["d_iner"].astype(np.float32)
        kept["inertial"].append(resampled(sensor.T, 48))
        other = str(path).replace("inertial", "{0}").replace("Inertial", "{1}")
        joints = loadmat(other.format("skeleton", "Skeleton"))["d_skel"].astype(np.float32)
        kept["skeleton"].append(resampled((joints - joints[:1]).reshape(60, -1), 24))
        motion = np.abs(np.diff(loadmat(other.format("depth", "Depth"))["d_depth"][::10, ::10].astype(np.float32)))
        kept["depth"].append(np.log1p(motion.sum(2))[None])
    subject = [int(name[1][1:]) for name in names]
    split = ["test" if number % 2 == 0 else "val" if number == 7 else "train" for number in subject]
    y = np.array([int(name[0][1:]) - 1 for name in names])
    return {**{m: np.stack(values) for m, values in kept.items()}, "y": y, "split": np.array(split)}


def resampled(series: np.ndarray, length: int) -> np.ndarray:
    """(channels, length) by linear interpolation over time."""
    at = np.linspace(0, series.shape[1] - 1, length)
    return np.stack([np.interp(at, np.arange(series.shape[1]), channel) for channel in series]).astype(np.float32)


def given(name: str) -> Callable[[Path], Arrays]:
    """A set of ``prepare.py``."""
    return lambda folder: prepare.SETS[name](folder / name)


REAL: Mapping[str, Unit] = {
    "av_mnist_fsdd": Unit("av_mnist_fsdd", given("av_mnist_fsdd")),
    "mosi_bclstm": Unit("mosi_bclstm", given("mosi_bclstm")),
    "sarcasm_text_attr": Unit("sarcasm_text_attr", given("sarcasm_text_attr")),
    "handwritten, pix and mor": Unit("handwritten", multiview("handwritten"), ("pix", "mor")),
    "handwritten, fou and zer": Unit("handwritten", multiview("handwritten"), ("fou", "zer")),
    "pie": Unit("pie", multiview("pie")),
    "flipkart_products": Unit("flipkart_products", flipkart),
    "mvsa_single": Unit("mvsa_single", mvsa),
    "ravdess_av": Unit("ravdess_av", ravdess),
    "propaganda_memes, smears": Unit("propaganda_memes", memes),
    "utd_mhad": Unit("utd_mhad", utd_mhad),
    "utd_mhad, skeleton and inertial": Unit("utd_mhad", utd_mhad, ("skeleton", "inertial")),
}


# -- made up -------------------------------------------------------------------------------------------
def made(kind: Callable[[np.random.Generator, np.ndarray, np.ndarray], Arrays], n: int, seed: int) -> Unit:
    """``n`` training samples, 400 for validation, 1000 for the test."""

    def load(folder: Path) -> Arrays:
        rng = np.random.default_rng(seed)
        split = np.array(["train"] * n + ["val"] * 400 + ["test"] * 1000)
        y = rng.integers(0, CLASSES, len(split))
        return {**kind(rng, y, split == "train"), "y": y, "split": split}

    return Unit(f"made up: {kind.__name__}", load)


def linear(rng: np.random.Generator, y: np.ndarray, noise: float) -> np.ndarray:
    """Four columns per class."""
    return np.eye(CLASSES)[y].repeat(4, axis=1) + noise * rng.normal(size=(len(y), 4 * CLASSES))


def signs(rng: np.random.Generator, bit: np.ndarray, noise: float = 0.3, pairs: int = 3) -> np.ndarray:
    """A bit as the product of the signs in pairs of columns: learned late, but fully."""
    first = np.sign(rng.normal(size=(len(bit), pairs)))
    columns = np.concatenate([first, first * np.where(bit, 1, -1)[:, None]], 1)
    return columns + noise * rng.normal(size=columns.shape)


def twins(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """Two alike, neither complete."""
    return {"a": linear(rng, y, 2.0), "b": linear(rng, y, 2.0)}


def late(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """One easy to learn and incomplete, the other slow and complete: joint training stops short of the other."""
    return {"easy": linear(rng, y, 1.5), "slow": np.concatenate([signs(rng, y & 1), signs(rng, y >> 1)], 1)}


def noise(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """One that tells nothing, and wide enough to be learned by heart."""
    return {"signal": linear(rng, y, 1.5), "noise": rng.normal(size=(len(y), 200))}


def together(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """Half of the label is told by the two together only, each alone tells the other half."""
    first = rng.integers(0, 2, len(y))
    second = first ^ (y & 1)
    both = [np.stack([x, y >> 1], 1).repeat(4, 1) + 0.7 * rng.normal(size=(len(y), 8)) for x in (first, second)]
    return {"a": both[0], "b": both[1]}


def halves(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """Each tells one bit of the label."""
    bits = [(y & 1)[:, None].repeat(8, 1), (y >> 1)[:, None].repeat(8, 1)]
    return {m: bit + 1.5 * rng.normal(size=bit.shape) for m, bit in zip("ab", bits, strict=True)}


def shortcut(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """One that is right for nearly all training samples and for half of the others, beside an honest one."""
    said = np.where(rng.random(len(y)) < np.where(train, 0.97, 0.5), y, rng.integers(0, CLASSES, len(y)))
    return {"shortcut": linear(rng, said, 0.3), "honest": linear(rng, y, 1.5)}


KINDS = (twins, late, noise, together, halves, shortcut)
MADE_UP: Mapping[str, Unit] = {
    f"{kind.__name__}, {n} samples": made(kind, n, seed) for kind in KINDS for seed, n in enumerate((400, 1200))
}
UNITS: Mapping[str, Unit] = {**REAL, **MADE_UP}
