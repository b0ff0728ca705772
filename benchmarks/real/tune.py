"""Choose learning rate and main knob of every method on validation: the same number of trials for each.

    python benchmarks/real/tune.py --config benchmarks/real/mosi_bclstm.yaml --data data/mosi_bclstm.npz --out runs/mosi

Writes ``settings.yaml`` (what `counterpoise benchmark --settings` takes) and ``tuning.json`` (every trial). The test
rows are left out of the data that the trials see. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from counterpoise import methods
from counterpoise.benchmark import plan
from counterpoise.benchmark.plan import UNIMODAL, Row

SEED = 100
"""Of all trials; the comparison uses others."""
RATES = {"av_mnist_fsdd": (0.03, 0.1), "mosi_bclstm": (0.003, 0.01, 0.03), "sarcasm_text_attr": (0.05, 0.15, 0.45)}
RATE = "optimizer.lr"
BETWEEN = (RATE, (1, 1.7))
"""Without a knob: twice as many learning rates. Nothing else, or it would be tuned for some rows alone."""


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
    }


def fixed(epochs: int, modalities: int) -> dict[str, dict[str, Any]]:
    """Row -> options that are not tuned: papers' warm-ups of 5 epochs and more shrink with the budget.

    ReconBoost trains one modality in a turn: as many turns as give each ``epochs`` passes, as in joint training.
    """
    few, turn = max(1, epochs // 6), max(1, epochs // 12)
    stages = round(epochs / (turn / modalities + turn))
    return {
        "Joint+SAM": {"method": "Joint"},
        "AGM": {"clip_norm": 1.0},
        "SMV": {"method.warmup": few},
        "OPM": {"method.warmup": few},
        "PMR": {"method.entropy_epochs": few},
        "ReconBoost": {"method.boost_epochs": turn, "method.rectify_epochs": turn, "method.stages": stages},
    }


def rows(modalities: list[str], epochs: int, wanted: list[str] | None) -> dict[str, tuple[dict[str, Any], str, tuple]]:
    """Row -> fixed options, main knob, its values; every modality alone is a row of its own."""
    chosen = knobs(epochs)
    lacking = set(methods.__all__) - set(chosen)
    if lacking:
        raise SystemExit(f"tune.py names no main knob for {', '.join(sorted(lacking))}: add it to knobs().")
    found = {}
    for name, (key, values) in chosen.items():
        if wanted and name not in wanted:
            continue
        options = fixed(epochs, len(modalities)).get(name, {})
        if name != UNIMODAL:
            found[name] = (options, key, values)
            continue
        for m in modalities:
            found[f"{UNIMODAL}({m})"] = ({"method": UNIMODAL, "method.modality": m}, key, values)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="options of `counterpoise fit` for all trials")
    parser.add_argument("--data", type=Path, required=True, help="the .npz of prepare.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials and of what is found")
    parser.add_argument("--methods", help="names with commas; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="trials at the same time")
    given = parser.parse_args()
    base = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    with np.load(given.data) as file:
        arrays = {name: file[name] for name in file.files}
    seen = given.out / "tuning" / f"{given.data.stem}.npz"
    seen.parent.mkdir(parents=True, exist_ok=True)
    np.savez(seen, **{name: values[arrays["split"] != "test"] for name, values in arrays.items()})
    modalities = [name for name in arrays if name not in ("y", "split")]
    table = rows(modalities, base["epochs"], given.methods.split(",") if given.methods else None)

    trials: dict[str, dict[str, Any]] = {}
    members: dict[str, list[str]] = {}
    for name, (options, key, values) in table.items():
        for i, (lr, value) in enumerate(product(RATES[given.data.stem], values)):
            members.setdefault(name, []).append(f"{name} trial {i}")
            own = {RATE: round(lr * value, 6)} if key == RATE else {RATE: lr, key: value}
            trials[members[name][-1]] = {"method": name, **options, **own}
    recipe = plan.base(["--config", str(given.config), "--data", str(seen)], "Joint", "tune.py")
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
        best, _ = max(done, key=lambda item: (item[1]["val"]["fused/accuracy"], -item[1]["val"]["fused/loss"]))
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
