"""How often a verdict of ``diagnose`` agrees with what its remedies then gain on test.

    python benchmarks/diagnosis.py DATA --out runs/diagnosis

DATA is a folder with the raw data of the sets in ``diagnosis_sets.py``; what is missing there is left out and named.
Every unit (a set, some of its modalities, or made-up data) is diagnosed on its validation split. Then joint training is
compared on the test split with alternation (MLA, and turns: IGM without its gradient modification and SAM, whichever is
better on validation), MSES and modality dropout. A unit and seed that is finished is not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diagnosis_sets import UNITS, Arrays
from measure import machine, table
from torch import nn

import counterpoise as cp
from counterpoise.engine.state import mix, seed_everything
from counterpoise.fusions import Late
from counterpoise.methods import IGM, MLA, MSES, Joint, ModalityDropout, Unimodal
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.evidence import ModalityEvidence, SeedEvidence
from counterpoise.studies.diagnosis.measuring import FinishedRun, measure
from counterpoise.studies.diagnosis.verdict import LEAST, Verdict, clearly_better, judge

MOST, WIDTH = 1200, 32
"""Training samples of a unit at most; width of features."""
JOINT = "joint"
REMEDIES: Mapping[str, tuple[Callable[[], cp.Method], Any, bool]] = {
    JOINT: (Joint, "Concat", False),
    "MLA": (MLA, "Shared", False),
    "turns": (partial(IGM, gm=False, sam="off"), partial(Late, hidden=()), False),
    "MSES": (partial(MSES, patience=3), "Concat", True),
    "dropout": (ModalityDropout, "Concat", False),
}
"""Name -> method, fusion, and whether the modalities have heads of their own."""
ALTERNATION = ("MLA", "turns")
COLUMNS = ("alternation", "MSES", "dropout")


# -- training ------------------------------------------------------------------------------------------
def encoder(values: np.ndarray) -> nn.Module:
    """One for numbers, one for words."""
    if values.dtype.kind in "iu":
        return cp.encoders.TextBag(int(values.max()) + 1, WIDTH)
    return cp.encoders.MLP(math.prod(values.shape[1:]), (64,), WIDTH)


def trained(arrays: Arrays, data: cp.Splits, method: cp.Method, fusion: Any, heads: bool, seed: int, epochs: int):
    """A trainer with the selected weights, what it reports and its scores on test."""
    seed_everything(mix(seed, "model"))
    encoders = {m: encoder(arrays[m]) for m in data.modalities}
    model = cp.build_model(encoders, fusion, task=data.task, heads=heads)
    trainer = cp.Trainer(
        model, method, epochs=epochs, batch_size=100, optimizer=cp.Adam(lr=2e-3), seed=seed, progress=False,
        accelerator="cpu", metrics=(data.task.yardstick,),
    )  # fmt: skip
    record = trainer.run(data)
    return FinishedRun(trainer, record, trainer.history, None)


def one(arrays: Arrays, data: cp.Splits, seed: int, epochs: int) -> dict[str, Any]:
    """Everything of a unit and a seed: the evidence, and each remedy's scores."""
    assert data.test is not None
    train = partial(trained, arrays, data, seed=seed, epochs=epochs)
    runs = {name: train(make(), fusion, heads) for name, (make, fusion, heads) in REMEDIES.items()}
    alone = {m: train(Unimodal(m), "Concat", False) for m in data.modalities}
    found = asdict(measure(runs[JOINT], alone, data, "Joint"))
    right = {}
    for name, run in runs.items():
        predicted = run.trainer.predict(data.test)
        right[name] = (predicted.fused.argmax(1) == predicted.target).numpy()
    scores = {
        name: {
            "val": run.record["val"]["fused/accuracy"],
            "test": float(right[name].mean()),
            "differ": float((right[name] != right[JOINT]).mean()),
        }
        for name, run in runs.items()
    }
    return {"measured": found, "scores": scores, "tested": len(data.test)}


def collect(folder: Path, out: Path, names: Sequence[str], seeds: Sequence[int], epochs: int) -> dict[str, list[Any]]:
    """Unit -> what ``one`` found, by seed; trained where it is not on disk."""
    kept: dict[str, list[Any]] = {}
    for seed in seeds:
        for name in names:
            slug = "".join(c if c.isalnum() else "-" for c in name)
            path, cached = out / f"{slug}-e{epochs}-s{seed}.json", out / "data" / f"{slug}.npz"
            if not path.exists():
                try:
                    arrays = stored(cached, partial(UNITS[name].arrays, folder))
                except FileNotFoundError as error:
                    print(f"{name}: left out, {error.filename or error} is missing", flush=True)
                    continue
                started = time.perf_counter()
                found = one(arrays, splits(arrays), seed, epochs)
                unfinished = path.with_suffix(".part")
                unfinished.write_text(json.dumps(found), encoding="utf-8")
                unfinished.replace(path)
                print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
            kept.setdefault(name, []).append(json.loads(path.read_text(encoding="utf-8")))
    return kept


def stored(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Arrays from disk, or made and put there."""
    if not path.exists():
        arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with (unfinished := path.with_suffix(".part")).open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        unfinished.replace(path)
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def splits(arrays: Arrays) -> cp.Splits:
    """With at most ``MOST`` training samples, drawn by seed 0."""
    split = arrays["split"]
    train = np.flatnonzero(split == "train")
    chosen = np.random.default_rng(0).permutation(train)[:MOST]
    rows = np.sort(np.concatenate([chosen, np.flatnonzero(split != "train")]))
    inputs = {m: values[rows] for m, values in arrays.items() if m not in ("y", "split")}
    return cp.from_arrays(inputs, arrays["y"][rows], split=split[rows])


# -- what it comes to ----------------------------------------------------------------------------------
class Result:
    """A unit over its seeds: the verdict, and each remedy's gain on test over joint training."""

    def __init__(self, name: str, found: Sequence[Mapping[str, Any]]):
        self.name, self.family = name, UNITS[name].family
        self.diagnosis = Diagnosis("Joint", "accuracy", [restored(seed["measured"]) for seed in found])
        self.verdict = judge(self.diagnosis)
        self.tested, self._found = found[0]["tested"], found
        better = max(ALTERNATION, key=lambda r: self.scores(r, "val").mean())
        self.remedies = {"alternation": better, "MSES": "MSES", "dropout": "dropout"}

    def scores(self, remedy: str, what: str) -> np.ndarray:
        """(seeds,)"""
        return np.array([seed["scores"][remedy][what] for seed in self._found])

    def gains(self, column: str) -> np.ndarray:
        """(seeds,) accuracy on test above joint training's."""
        return self.scores(self.remedies[column], "test") - self.scores(JOINT, "test")

    def outcome(self, column: str) -> int:
        """1 for a clear gain of two points at least, -1 for such a loss, 0 for neither; as the verdict counts."""
        for sign, pair in ((1, (self.remedies[column], JOINT)), (-1, (JOINT, self.remedies[column]))):
            better, worse = (self.scores(r, "test") for r in pair)
            differ = self.scores(self.remedies[column], "differ")
            if clearly_better(better, worse, self.tested, differ=differ) and float((better - worse).mean()) >= LEAST:
                return sign
        return 0

    @property
    def apart(self) -> float:
        """What the models of one modality each, averaged, gain over the joint model on validation."""
        return float((self.diagnosis.whole("apart") - self.diagnosis.whole("fused")).mean())


def restored(kept: Mapping[str, Any]) -> SeedEvidence:
    return SeedEvidence(**{**kept, "modalities": {m: ModalityEvidence(**e) for m, e in kept["modalities"].items()}})


def words(verdict: Verdict) -> str:
    said = [
        f"{kind}: {', '.join(found)}" for kind in KINDS if isinstance(found := getattr(verdict, kind), tuple) and found
    ]
    return "; ".join([*said, *(kind for kind in KINDS if getattr(verdict, kind) is True)]) or "–"


KINDS = ("starved", "unused", "hidden", "weak", "hurts", "apart", "together")


def units_table(results: Sequence[Result]) -> str:
    """A row per unit."""
    marks = {1: " **+**", -1: " **−**", 0: ""}
    lines = []
    for r in results:
        gains = [f"{points(r.gains(c))}{marks[r.outcome(c)]}" for c in COLUMNS]
        joint = f"{100 * r.scores(JOINT, 'test').mean():.1f}"
        lines.append([r.name, words(r.verdict), f"{100 * r.apart:+.1f}", joint, r.remedies["alternation"], *gains])
    header = ["unit", "verdict", "apart − joint, validation", "joint, test", "alternation by", *COLUMNS]
    return table(header, lines)


def points(values: np.ndarray) -> str:
    """Mean ± standard deviation over seeds, in points."""
    spread = f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():+.1f}{spread}"


def verdict_table(results: Sequence[Result]) -> str:
    """A row per part of the verdict: what each remedy does where it is given, and where it is not."""
    lines = []
    for kind in KINDS:
        for given in (True, False):
            rows = [r for r in results if bool(getattr(r.verdict, kind)) == given]
            cells = [summary(rows, column) for column in COLUMNS]
            lines.append([kind if given else f"not {kind}", len(rows), *cells])
    return table(["verdict", "units", *COLUMNS], lines)


def summary(rows: Sequence[Result], column: str) -> str:
    if not rows:
        return "–"
    outcomes = [r.outcome(column) for r in rows]
    mean = 100 * float(np.mean([r.gains(column).mean() for r in rows]))
    return f"{mean:+.1f}; {outcomes.count(1)} gain, {outcomes.count(-1)} lose"


def agreement(results: Sequence[Result], column: str) -> str:
    """How often each rule says what then happened, against always saying the more frequent of the two."""
    gained = np.array([r.outcome(column) == 1 for r in results])
    rules = {
        "apart": np.array([r.verdict.apart for r in results]),
        "starved": np.array([bool(r.verdict.starved) for r in results]),
        "hidden": np.array([bool(r.verdict.hidden) for r in results]),
        "hurts": np.array([r.verdict.hurts for r in results]),
        "starved, unused or hurts": np.array(
            [bool(r.verdict.starved or r.verdict.unused or r.verdict.hurts) for r in results]
        ),
    }
    lines = []
    for name, said in rules.items():
        wrong_yes, wrong_no = int((said & ~gained).sum()), int((~said & gained).sum())
        chance = fisher(int((said & gained).sum()), wrong_yes, wrong_no, int((~said & ~gained).sum()))
        lines.append(
            [name, f"{wrong_yes} of {said.sum()}", f"{wrong_no} of {(~said).sum()}",
             f"{100 * (said == gained).mean():.0f} %", f"{chance:.3f}"]
        )  # fmt: skip
    majority = max(gained.mean(), 1 - gained.mean())
    lines.append(["always the same", "", "", f"{100 * majority:.0f} %", ""])
    lines.append(["fitted threshold, left out", "", "", f"{100 * left_out(results, gained):.0f} %", ""])
    return table(["rule", "wrong where it says so", "wrong where it does not", "right", "p by chance"], lines)


def fisher(both: int, said: int, happened: int, neither: int) -> float:
    """One-sided: of all tables with these margins, those with as much agreement or more."""
    total, row, column = both + said + happened + neither, both + said, both + happened
    ways = [math.comb(column, k) * math.comb(total - column, row - k) for k in range(min(row, column) + 1)]
    return sum(ways[both:]) / math.comb(total, row)


def left_out(results: Sequence[Result], gained: np.ndarray) -> float:
    """Share that a threshold on ``apart`` gets right, fitted without the units of the same data."""
    values, families = np.array([r.apart for r in results]), np.array([r.family for r in results])
    right = []
    for family in np.unique(families):
        own = families == family
        borders = np.unique([-np.inf, *values[~own]])
        hits = [((values[~own] > border) == gained[~own]).mean() for border in borders]
        right += ((values[own] > borders[int(np.argmax(hits))]) == gained[own]).tolist()
    return float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the raw data of the sets")
    parser.add_argument("--out", type=Path, default=Path("runs/diagnosis"))
    parser.add_argument("--units", nargs="+", choices=UNITS, default=list(UNITS), metavar="UNIT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    kept = collect(given.data, given.out, given.units, given.seeds, given.epochs)
    results = [Result(name, found) for name, found in kept.items()]
    print(units_table(results), verdict_table(results), sep="\n\n", end="\n\n")
    for column in COLUMNS:
        print(f"Does {column} gain?\n\n{agreement(results, column)}\n")
    print(f"Seeds {', '.join(map(str, given.seeds))}, {given.epochs} epochs. {machine()}.")


if __name__ == "__main__":
    main()
