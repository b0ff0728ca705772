"""``auto`` beyond the tables of ``answer.py``: what else of part of its page is measured.

    python benchmarks/answer_more.py DATA --out runs/answer --parts several,late,crossfit,sizes,rare,tasks --seeds 0,1,2

Parts: ``several``, three runs as one model, and other pools of several; ``late``, which rule of ``Late`` combines best;
``crossfit``, pools that are also fitted on cross-fitted predictions of the training part; ``sizes``, 24 to 400 samples
for validation; ``rare``, classes of one tenth; ``tasks``, label sets and numbers. Trains what is not on disk by the
settings of ``answer.py``, in the same folder, and writes the tables of all that is into ``docs/answer.md``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from answer_more_page import write_parts
from diagnosis import MOST, splits, stored
from diagnosis_sets import Arrays, Unit, halves, made, memes, prepare, twins

import counterpoise as cp
from answer import DEVELOPED, HELD_BACK, RUNS, UNITS, Asked, once, trained
from counterpoise.fusions import Late
from counterpoise.methods import IGM, Joint, Unimodal

SIZES, FOLDS = (24, 50, 100, 200, 400), 3
SIZED = ("noise", "redundant, three", "handwritten, pix and mor")
RARE = {"redundant, 1 to 10": made(twins, 1600, 30), "unique, 1 to 10": made(halves, 1600, 31)}
RULES = ("mean", "sum", "entropy", "pool")
TURNS = Asked(partial(IGM, gm=False, sam="off"), partial(Late, hidden=()))
"""Taking turns: every modality is trained by itself, so one run is combined by every rule."""
COMPARED = {run: RUNS[run] for run in ("joint", "joint+sam", "auto")}


def against(data: cp.Splits) -> dict[str, Asked]:
    """``auto`` and what it is held against."""
    return {**{f"{m} alone": Asked(partial(Unimodal, m)) for m in data.modalities}, **COMPARED}


def drawn(arrays: Arrays, part: str, size: int) -> np.ndarray:
    """Rows of a part, so many of them drawn by seed 0."""
    return np.random.default_rng(0).permutation(np.flatnonzero(arrays["split"] == part))[:size]


def fewer(arrays: Arrays, size: int) -> Arrays:
    """With so many validation samples."""
    kept = np.sort(np.concatenate([np.flatnonzero(arrays["split"] != "val"), drawn(arrays, "val", size)]))
    return {name: values[kept] for name, values in arrays.items()}


def fold(arrays: Arrays, number: int) -> Arrays:
    """A third of the training part is the test, the rest trains."""
    train = drawn(arrays, "train", MOST)
    split = arrays["split"].copy()
    split[split == "test"] = "out"
    split[np.setdiff1d(np.flatnonzero(split == "train"), train)] = "out"
    split[train[number::FOLDS]] = "test"
    return {name: values[split != "out"] for name, values in {**arrays, "split": split}.items()}


def rare(arrays: Arrays) -> Arrays:
    """Nine of ten samples of every class but the first are left out."""
    kept = (arrays["y"] == 0) | (np.random.default_rng(0).random(len(arrays["y"])) < 0.1)
    return {name: values[kept] for name, values in arrays.items()}


def label_sets(folder: Path) -> cp.Splits:
    """Which of the six most frequent techniques a meme uses."""
    arrays = memes(folder)
    used = [set(row["labels"].split("|")) for row in prepare.read_rows(folder / "propaganda_memes" / "memes.csv")]
    every = sorted({name for names in used for name in names if name})
    frequent = sorted(every, key=lambda name: -sum(name in names for names in used))[:6]
    y = np.array([[int(name in names) for name in frequent] for names in used])
    inputs = {m: arrays[m] for m in ("text", "image")}
    return cp.from_arrays(inputs, y, split=arrays["split"], task="multi-label")


def prices(folder: Path) -> cp.Splits:
    """The logarithm of the price of a product, by its name, category and photograph."""
    source = folder / "flipkart_products"
    priced = [row for row in prepare.read_rows(source / "products.csv") if row["image"] and row["price"]]
    split = np.array([row["split"] for row in priced])
    text = prepare.tokens([f"{row['name']} {row['category']}" for row in priced], split)
    image = np.stack([prepare.pixels(source / row["image"]) for row in priced])
    y = np.log([float(row["price"]) for row in priced])
    return cp.from_arrays({"text": text, "image": image}, y, split=split, task="regression")


class Parts:
    """What each part trains: name of a set, run, and what trains it; for a seed.

    Args:
        folder: of all raw data.
        out: where arrays and runs are kept.
        seed: of weights and order.
    """

    def __init__(self, folder: Path, out: Path, seed: int):
        self.folder, self.out, self.seed = folder, out, seed

    def arrays(self, name: str, unit: Unit) -> Arrays:
        """Of a set, from disk where they are."""
        slug = "".join(c if c.isalnum() else "-" for c in name)
        return stored(self.out / "data" / f"{slug}.npz", partial(unit.arrays, self.folder))

    def train(self, name: str, arrays: Arrays, asked: dict[str, Asked]) -> None:
        """The runs of a set that are not on disk."""
        data = splits(arrays)
        for run, how in asked.items():
            once(self.out, name, run, self.seed, partial(trained, arrays, data, how, self.seed))

    def several(self) -> None:
        for name, unit in UNITS.items():
            arrays = self.arrays(name, unit)
            mixed = against(splits(arrays)) if name in DEVELOPED and self.seed == 0 else {}
            self.train(name, arrays, {**mixed, "auto": RUNS["auto"]})

    def late(self) -> None:
        rules = {f"late {rule}": Asked(Joint, partial(Late, rule=rule, hidden=())) for rule in RULES}
        for name, unit in DEVELOPED.items():
            self.train(name, self.arrays(name, unit), {**rules, "late turns": TURNS})

    def crossfit(self) -> None:
        for name, unit in DEVELOPED.items():
            for size in SIZES[:2]:
                arrays = fewer(self.arrays(name, unit), size)
                self.train(f"{name}, {size}", arrays, {"auto": RUNS["auto"]})
                for number in range(FOLDS):
                    self.train(f"{name}, {size}", fold(arrays, number), {f"fold {number}": RUNS["auto"]})

    def sizes(self) -> None:
        for name in SIZED:
            for size in SIZES:
                arrays = fewer(self.arrays(name, UNITS[name]), size)
                self.train(f"{name}, {size}", arrays, against(splits(arrays)))

    def rare(self) -> None:
        for name, unit in RARE.items():
            arrays = rare(self.arrays(name, unit))
            self.train(name, arrays, against(splits(arrays)))

    def tasks(self) -> None:
        for name, make in (("labels of memes", label_sets), ("prices of products", prices)):
            data = make(self.folder)
            arrays = {m: np.asarray(data.train.batch(range(len(data.train)), m, None)) for m in data.modalities}
            for run, how in against(data).items():
                once(self.out, name, run, self.seed, partial(trained, arrays, data, how, self.seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the raw data of all sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--parts", default="", help="names with commas; none trains nothing")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    for seed in given.seeds.split(","):
        for part in filter(None, given.parts.split(",")):
            getattr(Parts(given.data, given.out, int(seed)), part)()
    groups = {"developed": list(DEVELOPED), "held back": list(HELD_BACK)}
    tasks = {"labels of memes": label_sets(given.data).task, "prices of products": prices(given.data).task}
    sized = [f"{name}, {size}" for name in SIZED for size in SIZES]
    write_parts(given.out, groups, sized, list(RARE), tasks, (SIZES[:2], FOLDS))


if __name__ == "__main__":
    main()
