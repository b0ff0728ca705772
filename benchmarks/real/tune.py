"""Choose learning rate and, on some sets, main knob of every method on validation: the same number of trials for each.

    python benchmarks/real/tune.py --config benchmarks/real/mosi_bclstm.yaml --data data/mosi_bclstm.npz --out runs/mosi

Writes ``settings.yaml`` (what `counterpoise benchmark --settings` takes) and ``tuning.json`` (every trial). The test
rows are left out of the data that the trials see. Methods that are not defined for what is predicted have no row.
Started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from prepare import read_rows, write_rows

from counterpoise import methods
from counterpoise.benchmark import plan
from counterpoise.benchmark.plan import UNIMODAL, Row
from counterpoise.metrics import lower_is_better
from counterpoise.task import Task

SEED = 100
"""Of all trials; the comparison uses others."""
RATES = {
    "av_mnist_fsdd": (0.05, 0.15),
    "mosi_bclstm": (0.003, 0.01, 0.03),
    "pie": (0.003, 0.01, 0.03, 0.1, 0.3),
    "handwritten": (0.01, 0.03, 0.1),
    "flipkart_products": (0.05, 0.15, 0.45),
    "mvsa_single": (0.05, 0.15, 0.45),
    "ravdess_fold0": (0.02, 0.06, 0.2),
    "sarcasm_text_attr": (0.05, 0.15, 0.45),
    "propaganda_memes": (0.6, 2.0, 6.0),
    "flipkart_prices": (0.03, 0.1),
}
WITH_KNOBS = ("sarcasm_text_attr",)
"""Sets on which the main knob of a method is tuned, too."""
RATE = "optimizer.lr"
BETWEEN = (RATE, (1, 1.7))
"""Without a knob: twice as many learning rates. Nothing else, or it would be tuned for some rows alone."""


RATE_ALONE = (RATE, (1,))
"""On the other sets: knobs would double the number of trials."""


def knobs(epochs: int) -> dict[str, tuple[str, tuple[Any, Any]]]:
    """Row -> its main knob and two values of it, or factors of the learning rate where it has none.

    Lengths in epochs follow the budget.
    """
    few, some = max(1, epochs // 6), max(2, epochs // 3)
    return {
        UNIMODAL: BETWEEN,
        "Joint": BETWEEN,
        "Joint+SAM": ("sam", (0.05, 0.2)),
        "GBlending": ("method.super_epoch", (some, epochs)),
        "OGM": ("method.alpha", (0.3, 0.8)),
        "OGMGE": ("method.alpha", (0.3, 0.8)),
        "DOMFN": ("method.tau", (0.1, 0.2)),
        "MSES": ("method.patience", (few, some)),
        "PMR": ("method.alpha", (0.5, 1.0)),
        "AGM": ("method.alpha", (0.5, 1.5)),
        "MSLR": ("method.window", (few, some)),
        "ReconBoost": ("method.alpha", (0.1, 0.5)),
        "SMV": ("method.granularity", ("sample", "modality")),
        "MMPareto": ("method.gamma", (1.0, 1.5)),
        "MLA": ("method.alpha", (0.1, 0.5)),
        "IGM": ("method.tau", (0.4, 1.0)),
        "OPM": ("method.q_base", (0.3, 0.5)),
        "MMCosine": ("method.scale", (5.0, 10.0)),
        "UMT": ("method.lam", (1.0, 10.0)),
        "LFM": ("method.tau", (0.07, 0.5)),
        "ModalityDropout": ("method.p", (0.2, 0.4)),
        "TCMax": BETWEEN,
        "DGL": ("method.alpha", (1.0, 4.0)),
        "CML": ("method.lam", (0.5, 3.2)),
        "MBSD": ("method.kd", (0.3, 1.0)),
        "AMCo": ("method.eps", (0.3, 1.0)),
        "G2D": ("method.alpha", (0.1, 1.0)),
        "ReLearning": ("method.lam", (1.0, 3.0)),
        "BSS": ("method.start", (0.1, 0.5)),
        "DIMML": ("method.weight", (0.3, 1.0)),
        "MIDAS": ("method.lam", (1.0, 5.0)),
        "InfoReg": ("method.beta", (0.5, 0.9)),
        "Aggregated": ("method.aggregator", ("UPGrad", "MGDA")),
        "IPRM": ("method.alpha", (0.5, 0.8)),
        "DataRemixing": ("method.unimodal", (0.5, 1.0)),
        "AUG": ("method.lam", (0.2, 0.5)),
        "Greedy": ("method.eps", (0.001, 0.01)),
    }


def fixed(epochs: int, modalities: int) -> dict[str, dict[str, Any]]:
    """Row -> options that are not tuned, or not on tables: papers' lengths of 5 epochs and more shrink with the budget.

    ReconBoost trains one modality in a turn: as many turns as give each ``epochs`` passes, as in joint training.
    """
    few, turn = max(1, epochs // 6), max(1, epochs // 12)
    stages = round(epochs / (turn / modalities + turn))
    return {
        "Joint+SAM": {"method": "Joint", "sam": 0.05},
        "GBlending": {"method.super_epoch": max(2, epochs // 3)},
        "MSES": {"method.patience": max(2, epochs // 3)},
        "AGM": {"clip_norm": 1.0},
        "SMV": {"method.warmup": few},
        "OPM": {"method.warmup": few},
        "DataRemixing": {"method.warmup": few},
        "PMR": {"method.entropy_epochs": few},
        "ReconBoost": {"method.boost_epochs": turn, "method.rectify_epochs": turn, "method.stages": stages},
    }


def rows(
    modalities: tuple[str, ...], epochs: int, task: Task, wanted: list[str] | None, with_knobs: bool
) -> dict[str, tuple[dict[str, Any], str, tuple]]:
    """Row -> fixed options, main knob, its values; every modality alone is a row of its own."""
    chosen = knobs(epochs)
    lacking = set(methods.__all__) - set(chosen)
    if lacking:
        raise SystemExit(f"tune.py names no main knob for {', '.join(sorted(lacking))}: add it to knobs().")
    found = {}
    for name, (key, values) in chosen.items():
        options = fixed(epochs, len(modalities)).get(name, {})
        method = getattr(methods, options.get("method", name))
        if (wanted and name not in wanted) or not isinstance(task, method.tasks):
            continue
        key, values = (key, values) if with_knobs else RATE_ALONE
        if name != UNIMODAL:
            found[name] = (options, key, values)
            continue
        for m in modalities:
            found[f"{UNIMODAL}({m})"] = ({"method": UNIMODAL, "method.modality": m}, key, values)
    return found


def without_test(data: Path, seen: Path) -> None:
    """The same file without the test rows."""
    if data.suffix == ".csv":
        write_rows([row for row in read_rows(data) if row["split"] != "test"], seen)
        return
    with np.load(data) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(seen, **{name: values[arrays["split"] != "test"] for name, values in arrays.items()})


def goodness(scores: dict[str, float], monitor: str) -> tuple[float, float]:
    """What the best trial has most of."""
    score = scores[f"fused/{monitor}"]
    return -score if lower_is_better(monitor) else score, -scores["fused/loss"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="options of `counterpoise fit` for all trials")
    parser.add_argument("--data", type=Path, required=True, help="the .npz or .csv of prepare.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials and of what is found")
    parser.add_argument("--methods", help="names with commas; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="trials at the same time")
    given = parser.parse_args()
    base = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    seen = given.out / "tuning" / given.data.name
    seen.parent.mkdir(parents=True, exist_ok=True)
    without_test(given.data, seen)
    options = ["--config", str(given.config), "--data", str(seen)]
    if given.data.suffix == ".csv":
        options += ["--data.root", str(given.data.parent), "--data.cache", str(given.data.parent / "cache")]
    recipe = plan.base(options, "Joint", "tune.py")
    train = recipe.splits.train
    wanted = given.methods.split(",") if given.methods else None
    table = rows(train.modalities, base["epochs"], train.task, wanted, given.data.stem in WITH_KNOBS)

    trials: dict[str, dict[str, Any]] = {}
    members: dict[str, list[str]] = {}
    for name, (options, key, values) in table.items():
        for i, (lr, value) in enumerate(product(RATES[given.data.stem], values)):
            members.setdefault(name, []).append(f"{name} trial {i}")
            own = {RATE: round(lr * value, 6)} if key == RATE else {RATE: lr, key: value}
            trials[members[name][-1]] = {"method": name, **options, **own}
    variants = [
        Row(name, options["method"], {key: value for key, value in options.items() if key != "method"})
        for name, options in trials.items()
    ]
    planned = plan.plan(recipe, variants, [SEED])
    runs = given.out / "tuning" / "runs"
    outcome = plan.run([found for (found,) in planned.values()], runs, jobs=given.jobs)
    print(outcome.message())
    if outcome.exit_code == 130:
        return outcome.exit_code
    # a trial that ended in an error (a diverged run, say) is a trial, and loses
    directories = {name: runs / found.id for name, (found,) in planned.items()}
    log: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}
    for name, (options, key, _) in table.items():
        results = [(trial, _result(directories[trial] / "result.json")) for trial in members[name]]
        done = [(trial, result) for trial, result in results if result is not None]
        if not done:
            raise SystemExit(f"No trial of {name} has a result; see {given.out}/tuning/runs/logs.")
        best, _ = max(done, key=lambda item: goodness(item[1]["val"], train.task.monitor))
        settings[name] = {**options, **{k: trials[best][k] for k in (RATE, key)}}
        log[name] = {
            "knob": key,
            "chosen": settings[name],
            "trials": [
                {
                    RATE: trials[trial][RATE],
                    key: trials[trial][key],
                    "val": None if result is None else result["val"],
                    "seconds": None if result is None else result["seconds"],
                }
                for trial, result in results
            ],
        }
    (given.out / "settings.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    (given.out / "tuning.json").write_text(json.dumps(log, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(map(len, members.values()))} trials; the choices are in {given.out / 'settings.yaml'}.")
    return 0


def _result(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    raise SystemExit(main())
