"""Which rule of ``Late`` combines best, on the developers' sets of ``answer.py``.

    python benchmarks/late_rules.py DATA --out runs/answer

Joint training goes through the rule, so it is trained by each. Taking turns (IGM without its gradient modification and
SAM) trains each modality by itself, so one run is combined by every rule. Prints mean test accuracies in points, and
the difference to the mean of the probabilities with 95 % intervals over sets drawn again.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answer_page import experts, of_pool, of_run, over_sets, right
from diagnosis import splits, stored
from measure import table

from answer import DEVELOPED, Asked, trained
from counterpoise.functional import rules
from counterpoise.fusions import Late
from counterpoise.methods import IGM, Joint
from counterpoise.task import SingleLabel

RULES = ("mean", "sum", "entropy", "pool")
TURNS = Asked(partial(IGM, gm=False, sam="off"), partial(Late, hidden=()))


def combined(kept: dict[str, np.ndarray], rule: str) -> np.ndarray:
    """(samples,) whether the rule is right on the votes of a run."""
    val, test = (experts(kept, part)[1:] for part in ("val", "test"))
    if rule == "pool":
        return of_pool(val, test, kept)
    logits = torch.stack(test)
    task = SingleLabel(logits.shape[-1])
    if rule == "entropy":
        return right(rules.by_certainty(logits, task.certainty(logits)), kept["test/target"])
    return right(task.mean(logits) if rule == "mean" else rules.total(logits), kept["test/target"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the raw data of all sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    accuracy: dict[tuple[str, str], list[float]] = {}
    for name, unit in DEVELOPED.items():
        slug = "".join(c if c.isalnum() else "-" for c in name)
        arrays = stored(given.out / "data" / f"{slug}.npz", partial(unit.arrays, given.data))
        scores: dict[tuple[str, str], list[float]] = {}
        for seed in map(int, given.seeds.split(",")):
            runs = {rule: Asked(Joint, partial(Late, rule=rule, hidden=())) for rule in RULES}
            kept = {}
            for run, asked in {**runs, "turns": TURNS}.items():
                path = given.out / "late" / slug / f"{run}-s{seed}.npz"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    found: dict[str, Any] = dict(trained(arrays, splits(arrays), asked, seed))
                    np.savez(path, **found)
                with np.load(path) as file:
                    kept[run] = {key: file[key] for key in file.files}
            for rule in RULES:
                scores.setdefault(("Joint", rule), []).append(100 * of_run(kept, rule).mean())
                scores.setdefault(("turns", rule), []).append(100 * combined(kept["turns"], rule).mean())
        for row, values in scores.items():
            accuracy.setdefault(row, []).append(float(np.mean(values)))
        print(name, {" ".join(row): round(values[-1], 1) for row, values in accuracy.items()}, flush=True)
    cells = []
    for (method, rule), values in accuracy.items():
        gain = np.array(values) - np.array(accuracy[method, "mean"])
        worst = int(gain.argmin())
        cells.append([method, rule, f"{np.mean(values):.1f}", over_sets(list(gain)), f"{gain[worst]:+.1f}"])
    print(table(["trained by", "rule", "accuracy", "over the mean of probabilities", "worst set"], cells))


if __name__ == "__main__":
    main()
