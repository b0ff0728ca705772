"""What a student keeps of three runs as one model, on the developers' sets of ``answer.py``.

    python benchmarks/distil.py DATA --out runs/answer            # trains what is not on disk, then writes the page
    python benchmarks/distil.py DATA --out runs/answer --page     # the page only

Of each set: three runs of ``auto`` and joint training, their three seeds; the three runs as one model, the teacher;
three students of it. Once with all labels, once with every second training sample without: then the teacher has half,
and the students learn from both halves, or from that with labels only. At prediction a student costs one run of
``auto``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from answer_more_page import put, runs_of
from answer_page import DRAWS, of_run, of_run_pooled, span
from diagnosis import splits, stored
from diagnosis_sets import Arrays
from measure import table

import counterpoise as cp
from answer import DEVELOPED, RUNS, Asked, once, predicted, run
from counterpoise.answer.distil import Teacher, teach
from counterpoise.answer.failures import Attempt
from counterpoise.answer.several import together
from counterpoise.answer.student import Student
from counterpoise.data.split import Split
from counterpoise.portable import input_of

SEEDS, APART = (0, 1, 2), 100
"""Of the runs; between a run's and a student's, which would else begin with the same weights."""
STUDENT = RUNS["auto"]._replace(make=partial(Student, patience=5, joint=True))
WHOLE, HALF, LABELLED = "all labels", "half of the labels", "half of the labels, no other samples"
KINDS = (WHOLE, HALF, LABELLED)
Right = Mapping[str, np.ndarray]
"""Kind of model -> (seeds, samples) whether it is right on test."""


def answers(arrays: Arrays, data: cp.Splits, asked: Asked, seeds: Sequence[int]) -> tuple[list[Attempt], np.ndarray]:
    """Runs of several seeds, and (seeds, samples) whether the pool of each is right; of joint training, the run."""
    made, right = [], []
    for seed in seeds:
        trainer, record = run(arrays, data, asked, seed)
        judged = of_run_pooled if asked.heads else of_run
        right.append(judged({"it": predicted(trainer, data)}, "it"))
        made.append(Attempt(trainer, [], record))
    return made, np.stack(right)


def compared(arrays: Arrays, *, half: bool) -> dict[str, np.ndarray]:
    """Of a set: kind of model -> whether it is right on test."""
    data = splits(arrays)
    order = np.random.default_rng(1).permutation(len(data.train))
    labelled = np.sort(order[: len(order) // 2] if half else order)
    rest: Split | None = data.train.subset(np.setdiff1d(order, labelled).tolist()) if half else None
    data = cp.Splits(data.train.subset(labelled.tolist()), data.val, data.test)
    runs, one = answers(arrays, data, RUNS["auto"], SEEDS)
    joint = answers(arrays, data, RUNS["joint"], SEEDS)[1]
    whole = together(runs, data, None, name="", label="auto")
    inputs = {m: input_of(data.train, m, []) for m in data.modalities}
    teacher = Teacher("auto", whole.trainer, whole.result, inputs)
    seeds = [seed + APART for seed in SEEDS]
    predictions = whole.trainer.predict(data.test) if data.test is not None else None
    assert predictions is not None
    right = {"one": one, "joint": joint, "teacher": (predictions.fused.argmax(1) == predictions.target).numpy()[None]}
    right["student"] = answers(arrays, teach(teacher, data, rest), STUDENT, seeds)[1]
    if half:
        right["labelled"] = answers(arrays, teach(teacher, data), STUDENT, seeds)[1]
    return {name: values.astype(float) for name, values in right.items()}


# -- the page ------------------------------------------------------------------------------------------
def kinds_of(out: Path, name: str) -> dict[str, Right]:
    """The settings of which there are runs -> whether each model is right."""
    runs = runs_of(out, name).get(0, {})
    found: dict[str, Right] = {kind: runs[f"distil, {kind}"] for kind in (WHOLE, HALF) if f"distil, {kind}" in runs}
    if HALF in found:
        found[LABELLED] = {**found[HALF], "student": found[HALF]["labelled"]}
    return found


def drawn(difference: np.ndarray) -> np.ndarray:
    """(draws + 1,) the mean of (seeds, samples), then that of seeds and samples drawn again."""
    rng = np.random.default_rng(0)
    seeds, samples = (rng.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in difference.shape)
    return np.array([difference.mean(), *((seeds @ difference) * samples).sum(1)])


def by_set(found: Mapping[str, Mapping[str, Right]], kind: str) -> str:
    """A table: a row per set."""
    cells = []
    for name, kinds in found.items():
        if kind not in kinds:
            continue
        right = {model: 100 * values for model, values in kinds[kind].items() if values.ndim == 2}
        shown = [f"{right[model].mean():.1f}" for model in ("joint", "one", "teacher", "student")]
        over = [drawn(right["student"] - right[other].mean(0)) for other in ("one", "joint")]
        cells.append([name, *shown, *map(span, over)])
    header = ["set", "joint", "one run of auto", "three as one (teacher)", "student", "student − one run"]
    return table([*header, "student − joint"], cells)


def summary(found: Mapping[str, Mapping[str, Right]]) -> str:
    """A table: the gains over one run in the mean over sets, and the share of the teacher's that a student keeps."""
    cells = []
    for kind in KINDS:
        pairs = []
        for right in (kinds[kind] for kinds in found.values() if kind in kinds):
            mean = {model: 100 * right[model].mean() for model in ("one", "teacher", "student", "joint")}
            pairs.append(
                [mean["teacher"] - mean["one"], mean["student"] - mean["one"], mean["student"] - mean["joint"]]
            )
        if not pairs:
            continue
        gains = np.array(pairs)
        again = gains[np.random.default_rng(0).integers(0, len(gains), (DRAWS, len(gains)))].mean(1)
        both = np.concatenate([gains.mean(0)[None], again])
        share = 100 * both[:, 1] / both[:, 0]
        worst = f"{gains[:, 1].min():+.1f}"
        low, high = np.quantile(share[1:], [0.025, 0.975])
        kept = f"{share[0]:.0f} [{low:.0f}, {high:.0f}]"
        cells.append([kind, *(span(both[:, i]) for i in range(3)), worst, kept])
    header = ["students learn from", "teacher − one run", "student − one run", "student − joint"]
    return table([*header, "worst set, to one run", "share of the gain kept (%)"], cells)


def write(out: Path) -> None:
    """The tables of all that is on disk."""
    found = {name: kinds for name in DEVELOPED if (kinds := kinds_of(out, name))}
    put(
        "distil",
        "\n\n".join(
            [summary(found), *(f"{kind[0].upper()}{kind[1:]}:\n\n{by_set(found, kind)}" for kind in KINDS[:2])]
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the raw data of all sets")
    parser.add_argument("--out", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--page", action="store_true", help="train nothing")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "unlabelled: its targets")
    started = time.process_time()
    for name, unit in {} if given.page else DEVELOPED.items():
        slug = "".join(c if c.isalnum() else "-" for c in name)
        arrays = stored(given.out / "data" / f"{slug}.npz", partial(unit.arrays, given.data))
        for kind, half in ((WHOLE, False), (HALF, True)):
            make: Callable[[], dict[str, np.ndarray]] = partial(compared, arrays, half=half)
            once(given.out, name, f"distil, {kind}", 0, make)
    print(f"{time.process_time() - started:.0f} s of processor time")
    write(given.out)


if __name__ == "__main__":
    main()
