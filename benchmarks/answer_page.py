"""What the runs of ``answer.py`` come to: recipes and controls against the strict reference, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from measure import table
from torch import Tensor

from counterpoise.functional import fit_pool
from counterpoise.functional.pooling import pooled

PAGE = Path(__file__).parents[1] / "docs" / "answer.md"
AUTO, BEFORE = "auto", "mses+sam, patience 5"
"""The recipe, and the one before it: a linear fusion, and modalities that stop while the fused prediction improves."""
STRICT, HIDDEN = ("joint", "joint+sam"), "joint+sam, hidden"
"""Beside each modality alone: the best of them by mean accuracy on test is the reference, which flatters it. The one
with a hidden layer in the fusion is in the second reference only."""
NEEDED = (AUTO, BEFORE, HIDDEN, *STRICT, *(f"{run} 2" for run in STRICT))
DRAWS = 2000
Runs = Mapping[str, Mapping[str, np.ndarray]]
"""Run -> what ``answer.trained`` kept."""


def load(folder: Path) -> dict[int, dict[str, dict[str, np.ndarray]]]:
    """Seed -> run -> its arrays, of one set."""
    found: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    for path in sorted(folder.glob("*.npz")):
        if not path.name.startswith("unfinished"):
            with np.load(path) as file:
                kept = {name: file[name] for name in file.files}
            found.setdefault(int(kept["seed"]), {})[str(kept["run"])] = kept
    return found


# -- what predicts -------------------------------------------------------------------------------------
def experts(kept: Mapping[str, np.ndarray], part: str) -> list[Tensor]:
    """Logits of the fused prediction and of each modality."""
    names = [name for name in kept if name.startswith(f"{part}/") and name != f"{part}/target"]
    return [torch.from_numpy(kept[name]) for name in names]


def right(logits: Tensor, target: np.ndarray) -> np.ndarray:
    """(samples,) whether the prediction is right."""
    return (logits.argmax(1).numpy() == target).astype(float)


def of_pool(val: Sequence[Tensor], test: Sequence[Tensor], kept: Mapping[str, np.ndarray]) -> np.ndarray:
    """(samples,) of the pool that is fitted on validation."""
    pool = fit_pool(torch.stack(list(val)), torch.from_numpy(kept["val/target"]))
    return right(pooled(pool, torch.stack(list(test)).double()), kept["test/target"])


def of_run(runs: Runs, name: str) -> np.ndarray:
    """(samples,) of a run's own prediction."""
    kept = runs[name]
    return right(torch.from_numpy(kept["test/fused"]), kept["test/target"])


def of_run_pooled(runs: Runs, name: str) -> np.ndarray:
    """(samples,) of the pool of a run's fused prediction and heads."""
    val, test = (experts(runs[name], part) for part in ("val", "test"))
    return of_pool(val, test, runs[name])


def of_several(runs: Runs, names: Sequence[str]) -> np.ndarray:
    """(samples,) of the pool of the fused predictions of several runs."""
    val, test = ([torch.from_numpy(runs[n][f"{part}/fused"]) for n in names] for part in ("val", "test"))
    return of_pool(val, test, runs[names[0]])


def of_mean(runs: Runs, names: Sequence[str]) -> np.ndarray:
    """(samples,) of the mean of the probabilities of several runs."""
    p = torch.stack([torch.from_numpy(runs[n]["test/fused"]).softmax(1) for n in names]).mean(0)
    return right(p, runs[names[0]]["test/target"])


def of_best(runs: Runs, names: Sequence[str]) -> np.ndarray:
    """(samples,) of the run that is best on validation."""
    val = {n: right(torch.from_numpy(runs[n]["val/fused"]), runs[n]["val/target"]).mean() for n in names}
    return of_run(runs, max(val, key=lambda name: val[name]))


def rows(runs: Runs) -> dict[str, tuple[np.ndarray, float]]:
    """Name -> (samples,) whether right, and the cost in seconds of the processor; for one seed of a set."""
    alone = [name for name in runs if name.endswith(" alone")]
    cost = {name: float(kept["seconds"]) for name, kept in runs.items()}

    def spent(*names: str) -> float:
        return sum(cost[name] for name in names)

    found = {name: (of_run(runs, name), cost[name]) for name in [*alone, *STRICT, HIDDEN]}
    found[AUTO] = of_run_pooled(runs, AUTO), cost[AUTO]
    found["the same, its fused head"] = of_run(runs, AUTO), cost[AUTO]
    found["the recipe before"] = of_run_pooled(runs, BEFORE), cost[BEFORE]
    for idea in ("hidden layer", "auto, patience 3", "auto, no SAM"):
        if idea in runs:
            found[idea] = of_run_pooled(runs, idea), cost[idea]
    several = [*alone, "joint+sam"]
    found["modalities alone and joint + SAM, pooled"] = of_several(runs, several), spent(*several)
    for kind in STRICT:
        twice = [kind, f"{kind} 2"]
        found[f"two of {kind}, averaged"] = of_mean(runs, twice), spent(*twice)
    single = [*alone, *STRICT]
    found["the best single model on validation"] = of_best(runs, single), spent(*single)
    return found


# -- what it comes to ----------------------------------------------------------------------------------
class Set:
    """All seeds of a data set: (seeds, samples) whether right, per row, and the mean cost."""

    def __init__(self, name: str, by_seed: Mapping[int, Runs]):
        self.name, self.seeds = name, len(by_seed)
        each = [rows(runs) for _, runs in sorted(by_seed.items())]
        common = [row for row in each[0] if all(row in one for one in each)]
        self.right = {row: np.stack([one[row][0] for one in each]) for row in common}
        self.cost = {row: float(np.mean([one[row][1] for one in each])) for row in common}
        first = next(iter(by_seed.values()))["joint"]
        self.val, self.test = len(first["val/target"]), len(first["test/target"])
        candidates = [row for row in common if row.endswith(" alone") or row in STRICT]
        self.reference = max(candidates, key=lambda row: self.right[row].mean())
        self.hidden = max([*candidates, HIDDEN], key=lambda row: self.right[row].mean())
        self.alone = max((r for r in candidates if r.endswith(" alone")), key=lambda row: self.right[row].mean())

    def difference(self, row: str, over: str) -> np.ndarray:
        """(seeds, samples) points on test."""
        return 100 * (self.right[row] - self.right[over])

    def gain(self, row: str, over: str) -> np.ndarray:
        """(draws + 1,) points on test: the difference, then that of seeds and samples drawn again."""
        difference = self.difference(row, over)
        rng = np.random.default_rng(0)
        seeds, samples = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in difference.shape)
        return np.array([difference.mean(), *((seeds @ difference) * samples).sum(1)])


def span(values: np.ndarray) -> str:
    """The difference and where 95 of 100 drawn again lie."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:+.1f} [{low:.1f}, {high:.1f}]"


def over_sets(means: Sequence[float]) -> str:
    """Mean over sets, with the interval of sets drawn again."""
    values, rng = np.array(means), np.random.default_rng(0)
    drawn = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    return span(np.array([values.mean(), *drawn]))


def ranked(scores: Sequence[float]) -> np.ndarray:
    """1 for the highest, the mean rank for equal ones."""
    values = np.array(scores)
    higher, equal = (values[None] > values[:, None]).sum(1), (values[None] == values[:, None]).sum(1)
    return higher + (equal + 1) / 2


def summary(sets: Sequence[Set]) -> str:
    """A table: every row against the strict reference and joint training, over sets."""
    cells = []
    common = [row for row in sets[0].right if all(row in one.right for one in sets) and not row.endswith(" alone")]
    ranks = np.mean([ranked([one.right[row].mean() for row in common]) for one in sets], axis=0)
    for row, rank in zip(common, ranks, strict=True):
        strict = [float(one.difference(row, one.reference).mean()) for one in sets]
        joint = [float(one.difference(row, "joint").mean()) for one in sets]
        worst = min(range(len(sets)), key=lambda i: strict[i])
        below = sum(bool(np.quantile(one.gain(row, one.reference)[1:], 0.975) < 0) for one in sets)
        cost = math.exp(np.mean([math.log(one.cost[row] / one.cost["joint"]) for one in sets]))
        cells.append(
            [
                row,
                over_sets(strict),
                f"{strict[worst]:+.1f} ({sets[worst].name})",
                str(below),
                over_sets(joint),
                over_sets([float(one.difference(row, one.hidden).mean()) for one in sets]),
                f"{rank:.1f}",
                f"{cost:.1f}",
            ]
        )
    header = ["", "over the strict reference", "worst set", "sets clearly below", "over joint"]
    header += ["over the reference with a hidden layer", "mean rank", "cost, joint = 1"]
    return table(header, cells)


def by_set(sets: Sequence[Set]) -> str:
    """A table: a row per set."""
    cells = []
    for one in sets:
        mean = {row: f"{100 * values.mean():.1f}" for row, values in one.right.items()}
        cells.append(
            [
                one.name,
                f"{one.val}, {one.test}",
                f"{mean[one.alone]} ({one.alone.removesuffix(' alone')})",
                mean["joint"],
                mean["joint+sam"],
                mean[HIDDEN],
                mean[AUTO],
                span(one.gain(AUTO, one.reference)),
                span(one.gain(AUTO, "two of joint+sam, averaged")),
            ]
        )
    header = ["set", "validation, test", "best alone", "joint", "joint + SAM", "joint + SAM, hidden layer", "auto"]
    header += ["auto − strict", "auto − two joint + SAM"]
    return table(header, cells)


def sets_of(out: Path, names: Sequence[str]) -> list[Set]:
    """Those of which every run of some seed is on disk."""
    found = []
    for name in names:
        slug = "".join(c if c.isalnum() else "-" for c in name)
        by_seed = load(out / "runs" / slug)
        whole = {seed: runs for seed, runs in by_seed.items() if set(NEEDED) <= set(runs)}
        if whole:
            found.append(Set(name, whole))
    return found


def write_page(out: Path, groups: Mapping[str, Sequence[str]]) -> None:
    """Put the tables of each group of sets into ``docs/answer.md``, between its marks; the words around them stay."""
    text = PAGE.read_text(encoding="utf-8")
    for group, names in groups.items():
        sets = sets_of(out, names)
        if not sets:
            continue
        seeds = ", ".join(f"{one.name} {one.seeds}" for one in sets)
        body = f"{summary(sets)}\n\n{by_set(sets)}\n\nSeeds of each set: {seeds}."
        start, end = f"<!-- {group} -->", f"<!-- /{group} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{body}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text, encoding="utf-8")
