"""The data sets of ``diagnosis.py``: real ones from a folder, and made-up ones whose answer is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
def memes(folder: Path) -> Arrays:
    """Whether a meme smears somebody, the most frequent of its labels; a quarter of training joins validation."""
    source = folder / "propaganda_memes"
    table = prepare.read_rows(source / "memes.csv")
    y = np.array([int("Smears" in row["labels"].split("|")) for row in table])
    split = np.array([row["split"] for row in table])
    train = np.flatnonzero(split == "train")
    split[train[prepare.quarter(y[train])]] = "val"
    photos = np.stack([prepare.pixels(source / row["image"]) for row in table])
    return {
        "text": prepare.tokens([row["text"] for row in table], split, 30, 2000),
        "image": photos,
        "y": y,
        "split": split,
    }


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
    return lambda folder: prepare.ARRAYS[name](folder / prepare.FOLDERS.get(name, name))


REAL: Mapping[str, Unit] = {
    "av_mnist_fsdd": Unit("av_mnist_fsdd", given("av_mnist_fsdd")),
    "mosi_bclstm": Unit("mosi_bclstm", given("mosi_bclstm")),
    "sarcasm_text_attr": Unit("sarcasm_text_attr", given("sarcasm_text_attr")),
    "handwritten, pix and mor": Unit("handwritten", given("handwritten"), ("pix", "mor")),
    "handwritten, fou and zer": Unit("handwritten", given("handwritten"), ("fou", "zer")),
    "pie": Unit("pie", given("pie")),
    "flipkart_products": Unit("flipkart_products", given("flipkart_products")),
    "mvsa_single": Unit("mvsa_single", given("mvsa_single")),
    "ravdess_av": Unit("ravdess_av", given("ravdess_fold0")),
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
