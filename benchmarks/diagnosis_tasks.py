"""Whether verdicts of ``diagnose`` on label sets and numbers say what is true of made-up data.

    python benchmarks/diagnosis_tasks.py

Six labels, or three numbers, and two modalities of which is known what they tell: both the same, one nothing, each its
half, or only both together. Who is weak, and whether the joint model is better than the modalities apart, is judged by
that truth, from one seed and from all. Nobody is starved by construction, and remedies are not trained.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from diagnosis import points, trained, words
from diagnosis_sets import Arrays
from measure import machine, table

import counterpoise as cp
from counterpoise.methods import Joint, Unimodal
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.evidence import SeedEvidence
from counterpoise.studies.diagnosis.measuring import measure
from counterpoise.studies.diagnosis.verdict import Verdict, judge
from counterpoise.task import TASKS

TRAIN, VAL = 1200, 400
WIDTHS: Mapping[str, int] = {"multi-label": 6, "regression": 3}
"""Task -> how many labels or numbers."""


def noisy(rng: np.random.Generator, values: np.ndarray, noise: float) -> np.ndarray:
    """Four columns per label or number."""
    columns = values.repeat(4, axis=1)
    return (columns + noise * rng.normal(size=columns.shape)).astype(np.float32)


def drawn(rng: np.random.Generator, task: str, size: int = TRAIN + VAL) -> np.ndarray:
    """Signs of labels, or normal numbers."""
    values = rng.normal(size=(size, WIDTHS[task]))
    return np.sign(values) if task == "multi-label" else values


def redundant(rng: np.random.Generator, task: str) -> Arrays:
    """Both tell the same."""
    y = drawn(rng, task)
    return {"a": noisy(rng, y, 1.5), "b": noisy(rng, y, 1.5), "y": y}


def noise(rng: np.random.Generator, task: str) -> Arrays:
    """One tells nothing."""
    y = drawn(rng, task)
    return {"a": noisy(rng, y, 1.5), "noise": rng.normal(size=(len(y), 50)).astype(np.float32), "y": y}


def halves(rng: np.random.Generator, task: str) -> Arrays:
    """Each tells half of the labels, or one of the two addends of each number."""
    one, other = drawn(rng, task), drawn(rng, task)
    half = WIDTHS[task] // 2
    y = np.concatenate([one[:, :half], other[:, half:]], 1) if task == "multi-label" else (one + other) / math.sqrt(2)
    told = (one[:, :half], other[:, half:]) if task == "multi-label" else (one, other)
    return {**{m: noisy(rng, values, 1.0) for m, values in zip("ab", told, strict=True)}, "y": y}


def synergy(rng: np.random.Generator, task: str) -> Arrays:
    """Only the product of what the two tell says anything."""
    one, other = drawn(rng, task), drawn(rng, task)
    return {"a": noisy(rng, one, 0.5), "b": noisy(rng, other, 0.5), "y": one * other}


@dataclass(frozen=True)
class Truth:
    """Made-up data, and what a verdict on them should say.

    Attributes:
        make: gives them.
        weak: the modalities that tell nothing alone.
        together: the tasks in which the best joint model of this fusion beats the mean of the best models apart.
        fusion: of the joint model.
    """

    make: Callable[[np.random.Generator, str], Arrays]
    weak: tuple[str, ...]
    together: tuple[str, ...] = ()
    fusion: str = "Concat"

    @property
    def name(self) -> str:
        return self.make.__name__ + (f", {self.fusion}" if self.fusion != "Concat" else "")

    def agrees(self, verdict: Verdict, task: str) -> bool:
        """Whether it says who is weak, and which is better; for the rest there is no truth by construction."""
        return verdict.weak == self.weak and verdict.together == (task in self.together) and not verdict.apart

    def data(self, task: str, draw: int) -> tuple[Arrays, cp.Splits]:
        """The arrays of the modalities, and the splits."""
        arrays = self.make(np.random.default_rng(draw), task)
        y = arrays.pop("y")
        target = (y > 0).astype(np.int64) if task == "multi-label" else y
        split = np.array(["train"] * TRAIN + ["val"] * VAL)
        return arrays, cp.from_arrays(arrays, target, split=split, task=task)


TRUTHS = (
    Truth(redundant, ()),
    Truth(noise, ("noise",), ("regression",)),  # the mean with a model that knows nothing halves each number
    Truth(halves, (), ("regression",)),  # and keeps the sign of each logit
    Truth(synergy, ("a", "b")),  # which a sum cannot express
    Truth(synergy, ("a", "b"), ("multi-label", "regression"), "FiLM"),
)


def measured(truth: Truth, task: str, seed: int, epochs: int, draw: int) -> SeedEvidence:
    """The joint model against each modality alone."""
    arrays, data = truth.data(task, draw)
    train = partial(trained, arrays, data, seed=seed, epochs=epochs)
    joint = train(Joint(), truth.fusion, truth.fusion != "Concat")
    return measure(joint, {m: train(Unimodal(m), "Concat", False) for m in data.modalities}, data, "Joint")


def row(truth: Truth, task: str, seeds: Sequence[int], epochs: int, draw: int) -> list[str]:
    """What the verdict on one set of data says."""
    each = [measured(truth, task, seed, epochs, draw) for seed in seeds]
    metric = TASKS[task].yardstick
    alone = [judge(Diagnosis("Joint", metric, [one])) for one in each]
    verdict = judge(Diagnosis("Joint", metric, each))
    gain = np.array([one.fused - one.apart for one in each])
    best = np.array([max(e.alone - e.chance for e in one.modalities.values()) for one in each])
    print(f"{task}, {truth.name}: {words(verdict)}", flush=True)
    return [
        task, truth.name, words(verdict), "yes" if truth.agrees(verdict, task) else "no",
        f"{sum(truth.agrees(one, task) for one in alone)} of {len(alone)}", points(best), points(gain),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--draw", type=int, default=1, help="seed of the data")
    given = parser.parse_args()
    rows = [row(truth, task, given.seeds, given.epochs, given.draw) for task in WIDTHS for truth in TRUTHS]
    header = ["task", "data", "verdict", "true", "true from one seed", "best alone − chance", "joint − apart"]
    print(table(header, rows))
    print(f"Seeds {', '.join(map(str, given.seeds))}, draw {given.draw}, {given.epochs} epochs. {machine()}.")


if __name__ == "__main__":
    main()
