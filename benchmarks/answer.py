"""Which recipe of experts stands up to the best modality alone, joint training and joint training with SAM.

    python benchmarks/answer.py DATA --out runs/answer            # trains what is not on disk, then writes the page
    python benchmarks/answer.py DATA --out runs/answer --page     # the page only

DATA is a folder with the raw data of the sets in ``diagnosis_sets.py``; what is missing there is left out and named.
All runs of a set have the same split, encoders, optimizer, epochs and batch size; what differs is the seed of weights
and order. ``DEVELOPED`` are the sets that the recipe of ``counterpoise auto`` was chosen on, ``HELD_BACK`` those that
were not looked at before it was fixed. The predictions of a finished run are on disk, so rules are compared without
training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from answer_page import write_page
from diagnosis import encoder, splits, stored
from diagnosis_sets import REAL, Arrays, Unit, given, halves, late, linear, made, noise, shortcut, together, twins

import counterpoise as cp
from counterpoise.engine.state import mix, seed_everything
from counterpoise.fusions import WideDeep
from counterpoise.methods import MSES, Joint, Unimodal

EPOCHS, RHO = 30, 0.05


def xor(rng: np.random.Generator, y: np.ndarray, train: np.ndarray, noise: float = 0.2) -> Arrays:
    """Nothing can be learned from one of the two: each bit of the label is told by both together only."""
    first = rng.integers(0, 2, (len(y), 2))
    second = first ^ np.stack([y & 1, y >> 1], 1)
    return {m: bits.repeat(4, 1) + noise * rng.normal(size=(len(y), 8)) for m, bits in (("a", first), ("b", second))}


def noisy_xor(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """The same, learned late."""
    return xor(rng, y, train, 0.8)


def of_three(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """A bit told by two together only, the other by a third."""
    first = rng.integers(0, 2, len(y))
    two = {
        m: bits[:, None].repeat(6, 1) + 0.5 * rng.normal(size=(len(y), 6))
        for m, bits in (("a", first), ("b", first ^ (y & 1)))
    }
    return {**two, "c": (y >> 1)[:, None].repeat(8, 1) + 2.0 * rng.normal(size=(len(y), 8))}


def lone(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """One that knows among three that are noise."""
    return {"good": linear(rng, y, 2.0), **{f"n{i}": rng.normal(size=(len(y), 60)) for i in range(3)}}


def triplets(rng: np.random.Generator, y: np.ndarray, train: np.ndarray) -> Arrays:
    """Three alike, none complete."""
    return {m: linear(rng, y, 2.5) for m in "abc"}


DEVELOPED: Mapping[str, Unit] = {
    "redundant": made(twins, 400, 0),
    "noise": made(noise, 400, 1),
    "exclusive-or": made(xor, 1200, 2),
    "handwritten, pix and mor": REAL["handwritten, pix and mor"],
    "mosi_bclstm": REAL["mosi_bclstm"],
    "flipkart_products": REAL["flipkart_products"],
    "exclusive-or, noisy": made(noisy_xor, 800, 20),
    "exclusive-or beside a third": made(of_three, 600, 21),
    "one of four": made(lone, 400, 22),
    "redundant, three": made(triplets, 400, 23),
}
HELD_BACK: Mapping[str, Unit] = {
    "unique": made(halves, 400, 3),
    "half together": made(together, 400, 4),
    "late": made(late, 1200, 5),
    "shortcut": made(shortcut, 400, 6),
    "pie": REAL["pie"],
    "handwritten, all six": Unit("handwritten, all six", given("handwritten")),
    "ravdess_av": REAL["ravdess_av"],
    "propaganda_memes, smears": REAL["propaganda_memes, smears"],
    "mvsa_single": REAL["mvsa_single"],
    "sarcasm_text_attr": REAL["sarcasm_text_attr"],
    "av_mnist_fsdd": REAL["av_mnist_fsdd"],
}
"""Decided before any of their runs was started."""
UNITS = {**DEVELOPED, **HELD_BACK}


class Asked(NamedTuple):
    """A run: what is trained, how, and how many more seeds of it there are."""

    make: Callable[[], cp.Method]
    fusion: Any = "Concat"
    heads: bool = False
    sam: float = 0.0
    copy: int = 0


RUNS: Mapping[str, Asked] = {
    "joint": Asked(Joint),
    "joint+sam": Asked(Joint, sam=RHO),
    "joint+sam, hidden": Asked(Joint, WideDeep, sam=RHO),
    "auto": Asked(partial(MSES, patience=5, joint=True), WideDeep, heads=True, sam=RHO),
    "mses+sam, patience 5": Asked(partial(MSES, patience=5), heads=True, sam=RHO),
    "joint 2": Asked(Joint, copy=1),
    "joint+sam 2": Asked(Joint, sam=RHO, copy=1),
}
"""Of every set, beside each modality alone."""
IDEAS: Mapping[str, Asked] = {
    "hidden layer": Asked(partial(MSES, patience=5), WideDeep, heads=True, sam=RHO),
    "auto, patience 3": Asked(partial(MSES, patience=3, joint=True), WideDeep, heads=True, sam=RHO),
    "auto, no SAM": Asked(partial(MSES, patience=5, joint=True), WideDeep, heads=True),
}
"""Tried on the developers' sets only."""


def run(arrays: Arrays, data: cp.Splits, asked: Asked, seed: int) -> tuple[cp.Trainer, dict[str, Any]]:
    """A trainer with the selected weights, and the result."""
    seed = seed + 1000 * asked.copy
    seed_everything(mix(seed, "model"))
    encoders = {m: encoder(arrays[m]) for m in data.modalities}
    model = cp.build_model(encoders, asked.fusion, task=data.task, heads=asked.heads)
    trainer = cp.Trainer(
        model, asked.make(), epochs=EPOCHS, batch_size=min(100, len(data.train)), optimizer=cp.Adam(lr=2e-3), seed=seed,
        progress=False, accelerator="cpu", sam=asked.sam,
    )  # fmt: skip
    return trainer, trainer.run(data)


def predicted(trainer: cp.Trainer, data: cp.Splits) -> dict[str, np.ndarray]:
    """Logits of the fused prediction and of each modality on validation and test, and targets."""
    kept: dict[str, np.ndarray] = {}
    for part in ("val", "test"):
        found = trainer.predict(getattr(data, part))
        kept |= {f"{part}/{name}": logits.numpy() for name, logits in found.named().items()}
        kept[f"{part}/target"] = found.target.numpy()
    return kept


def trained(arrays: Arrays, data: cp.Splits, asked: Asked, seed: int) -> dict[str, np.ndarray]:
    """What is ``predicted`` by a run, and its cost."""
    trainer, record = run(arrays, data, asked, seed)
    cost = {"seconds": record["cost"].get("cpu_seconds", record["seconds"]), "epochs": record["epochs"]}
    return {**{name: np.asarray(value) for name, value in cost.items()}, **predicted(trainer, data)}


def collect(folder: Path, out: Path, seeds: Sequence[int], names: Sequence[str]) -> None:
    """Train what is not on disk, the cheap sets first and all sets of a seed before the next."""
    for seed in seeds:
        for name in names:
            slug = "".join(c if c.isalnum() else "-" for c in name)
            try:
                arrays = stored(out / "data" / f"{slug}.npz", partial(UNITS[name].arrays, folder))
            except FileNotFoundError as error:
                print(f"{name}: left out, {error.filename or error} is missing", flush=True)
                continue
            data = splits(arrays)
            alone = {f"{m} alone": Asked(partial(Unimodal, m)) for m in data.modalities}
            for run, asked in {**alone, **RUNS, **(IDEAS if name in DEVELOPED else {})}.items():
                once(out, name, run, seed, partial(trained, arrays, data, asked, seed))


def once(out: Path, name: str, run: str, seed: int, train: Callable[[], dict[str, np.ndarray]]) -> None:
    """Train a run of a set that is not on disk, and put it there."""
    slug, file = ("".join(c if c.isalnum() else "-" for c in text) for text in (name, run))
    path = out / "runs" / slug / f"{file}-s{seed}.npz"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    unfinished = path.with_name(f"unfinished-{path.name}")
    kept: dict[str, Any] = {**train(), "run": run, "seed": seed}
    np.savez(unfinished, **kept)
    unfinished.replace(path)
    print(f"{name}, {run}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the raw data of all sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--sets", default="", help="names with semicolons; all when left out")
    parser.add_argument("--page", action="store_true", help="train nothing")
    given = parser.parse_args()
    asked = [part for part in given.sets.split(";") if part]
    names = [name for name in UNITS if not asked or name in asked]
    if not given.page:
        collect(given.data, given.out, [int(seed) for seed in given.seeds.split(",")], names)
    write_page(given.out, {"developed": tuple(DEVELOPED), "held back": tuple(HELD_BACK)})


if __name__ == "__main__":
    main()
