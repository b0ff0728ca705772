"""What the runs of ``answer_more.py`` come to, as tables in ``docs/answer.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from answer_page import (
    DRAWS,
    PAGE,
    STRICT,
    experts,
    load,
    of_pool,
    of_run,
    of_run_pooled,
    over_sets,
    right,
    span,
)
from measure import table
from torch import Tensor

from counterpoise.functional import fit_pool, rules
from counterpoise.functional.pooling import Pool, pooled
from counterpoise.fusions.pool import ExpertPool
from counterpoise.metrics import lower_is_better
from counterpoise.task import SingleLabel, Task

Kept = Mapping[str, np.ndarray]
RULES = ("mean", "sum", "entropy", "pool")
SCORE_DRAWS = 200


def runs_of(out: Path, name: str) -> dict[int, dict[str, dict[str, np.ndarray]]]:
    """Seed -> run -> its arrays, of a set."""
    return load(out / "runs" / "".join(c if c.isalnum() else "-" for c in name))


def put(mark: str, body: str) -> None:
    """Into the page, between the marks of this name."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(f"<!-- {mark} -->")
    PAGE.write_text(f"{before}<!-- {mark} -->\n{body}\n{rest[rest.index(f'<!-- /{mark} -->') :]}", encoding="utf-8")


def mean_log(values: Sequence[np.ndarray]) -> Tensor:
    """Of the probabilities of several logits."""
    return torch.stack([torch.from_numpy(u).double().log_softmax(1) for u in values]).mean(0)


# -- several runs --------------------------------------------------------------------------------------
def strict_reference(seeds: Sequence[Mapping[str, Kept]]) -> np.ndarray | None:
    """(seeds, samples) whether right: of each modality alone, joint and joint + SAM the best on test.

    Of the seeds that have joint and joint + SAM; None when none has.
    """
    whole = [runs for runs in seeds if {*STRICT} <= set(runs)]
    if not whole:
        return None
    names = [run for run in whole[0] if run in STRICT or run.endswith(" alone")]
    candidates = [np.stack([of_run(runs, run) for runs in whole]) for run in names if all(run in one for one in whole)]
    return max(candidates, key=lambda right: right.mean())


def several(out: Path, names: Sequence[str]) -> str:
    """One run, and three as one model (kind by kind averaged, then pooled), which is held against the reference too."""
    cells, gains, over_strict = [], [], []
    for name in names:
        seeds = [runs for _, runs in sorted(runs_of(out, name).items())]
        kept, reference = [runs["auto"] for runs in seeds if "auto" in runs], strict_reference(seeds)
        if len(kept) < 3:
            continue
        kinds = [key.partition("/")[2] for key in kept[0] if key.startswith("val/") and key != "val/target"]
        val, test = ([mean_log([k[f"{part}/{kind}"] for k in kept]) for kind in kinds] for part in ("val", "test"))
        one = np.stack([of_run_pooled({"auto": k}, "auto") for k in kept])
        three = of_pool(val, test, kept[0])
        difference = 100 * (three - one.mean(0))
        n = len(difference)
        samples = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS) / n
        gains.append(float(difference.mean()))
        spread = f"{100 * one.mean():.1f} ({', '.join(f'{100 * x:.1f}' for x in one.mean(1))})"
        cells.append(
            [name, spread, f"{100 * three.mean():.1f}", span(np.array([difference.mean(), *(samples @ difference)]))]
        )
        if reference is None:
            cells[-1] += ["not trained", ""]
            continue
        over = 100 * (three - reference.mean(0))
        over_strict.append(float(over.mean()))
        cells[-1] += [
            f"{100 * reference.mean():.1f} ({len(reference)})",
            span(np.array([over.mean(), *(samples @ over)])),
        ]
    cells.append(["mean over sets", "", "", over_sets(gains), "", over_sets(over_strict) if over_strict else ""])
    header = ["set", "one run, mean (each seed)", "three as one model", "difference", "strict reference (seeds)"]
    return table([*header, "three − strict"], cells)


def mixed(out: Path, names: Sequence[str]) -> str:
    """What else may be pooled with one run, of the first seed."""
    gains: dict[str, list[float]] = {}
    for name in names:
        runs = runs_of(out, name).get(0, {})
        alone = [run for run in runs if run.endswith(" alone")]
        if "auto" not in runs or "joint+sam" not in runs:
            continue
        own = of_run_pooled(runs, "auto").mean()
        for label, more in (
            ("modalities alone, joint + SAM and the run", [*alone, "joint+sam"]),
            ("joint + SAM and the run", ["joint+sam"]),
            ("modalities alone and the run", alone),
        ):
            val, test = (
                [torch.from_numpy(runs[run][f"{part}/fused"]) for run in more] + experts(runs["auto"], part)
                for part in ("val", "test")
            )
            gains.setdefault(label, []).append(100 * float(of_pool(val, test, runs["auto"]).mean() - own))
    cells = [[label, over_sets(values), f"{min(values):+.1f}"] for label, values in gains.items()]
    return table(["pooled", "over the run", "worst set"], cells)


# -- rules of late fusion ------------------------------------------------------------------------------
def combined(kept: Kept, rule: str) -> np.ndarray:
    """(samples,) whether the rule is right on the votes of a run."""
    val, test = (experts(kept, part)[1:] for part in ("val", "test"))
    if rule == "pool":
        return of_pool(val, test, kept)
    logits = torch.stack(test)
    task = SingleLabel(logits.shape[-1])
    if rule == "entropy":
        return right(rules.by_certainty(logits, task.certainty(logits)), kept["test/target"])
    return right(task.mean(logits) if rule == "mean" else rules.total(logits), kept["test/target"])


def late(out: Path, names: Sequence[str]) -> str:
    """Every rule: trained through, on the votes of a joint run, on those of modalities that take turns."""
    ways: Mapping[str, Callable[[Mapping[str, Kept], str], np.ndarray]] = {
        "joint, through the rule": lambda runs, rule: of_run(runs, f"late {rule}"),
        "joint through the mean, then the rule": lambda runs, rule: combined(runs["late mean"], rule),
        "taking turns, then the rule": lambda runs, rule: combined(runs["late turns"], rule),
    }
    cells = []
    for way, of in ways.items():
        accuracy: dict[str, list[float]] = {rule: [] for rule in RULES}
        for name in names:
            seeds = [runs for runs in runs_of(out, name).values() if "late turns" in runs]
            for rule in RULES if seeds else ():
                accuracy[rule].append(100 * float(np.mean([of(runs, rule).mean() for runs in seeds])))
        for rule, values in accuracy.items():
            gain = np.array(values) - np.array(accuracy["mean"])
            cells.append([way, rule, f"{np.mean(values):.1f}", over_sets(list(gain)), f"{gain.min():+.1f}"])
    return table(["trained", "rule", "accuracy", "over the mean of probabilities", "worst set"], cells)


# -- few samples to fit on -----------------------------------------------------------------------------
def crossfit(out: Path, names: Sequence[str], sizes: Sequence[int], folds: int) -> str:
    """The pool fitted on validation alone, or with cross-fitted predictions of the training part."""
    cells = []
    for size in sizes:
        gains: dict[str, list[float]] = {}
        for name in names:
            each: dict[str, list[float]] = {}
            for runs in runs_of(out, f"{name}, {size}").values():
                if any(f"fold {k}" not in runs for k in range(folds)) or "auto" not in runs:
                    continue
                kept = runs["auto"]
                val, test = (torch.stack(experts(kept, part)) for part in ("val", "test"))
                more = [torch.stack(experts(runs[f"fold {k}"], "test")) for k in range(folds)]
                y = [kept["val/target"], *(runs[f"fold {k}"]["test/target"] for k in range(folds))]
                both = fit_pool(torch.cat([val, *more], 1), torch.from_numpy(np.concatenate(y)))
                pools = {
                    "equal weights": Pool.equal(len(val), val.shape[-1], 0.01),
                    "fitted on validation": fit_pool(val, torch.from_numpy(kept["val/target"])),
                    "fitted on both": both,
                }
                plain = of_run(runs, "auto").mean()
                for label, pool in pools.items():
                    gain = right(pooled(pool, test.double()), kept["test/target"]).mean() - plain
                    each.setdefault(label, []).append(100 * float(gain))
            for label, values in each.items():
                gains.setdefault(label, []).append(float(np.mean(values)))
        cells += [[str(size), label, over_sets(v), f"{min(v):+.1f}"] for label, v in gains.items()]
    return table(["validation samples", "pool", "over the fused head", "worst set"], cells)


# -- auto against the reference ------------------------------------------------------------------------
def outputs(kept: Kept, task: Task, *, pool: bool) -> Tensor:
    """What a run predicts on test, by the pool of its experts or not."""
    names = [key.partition("/")[2] for key in kept if key.startswith("val/") and key != "val/target"]
    val, test = ({n: torch.from_numpy(kept[f"{part}/{n}"]) for n in names} for part in ("val", "test"))
    if not pool:
        return test["fused"]
    fitted = ExpertPool(("fused", *(n for n in names if n != "fused")), task, first="fused")
    fitted.fit(val, torch.from_numpy(kept["val/target"]))
    return fitted(test)


def compared(out: Path, name: str, task: Task | None = None, metric: str = "accuracy") -> list[str] | None:
    """A row: each model's score, and the gain over the best of the others by their mean on test."""
    seeds = [runs for _, runs in sorted(runs_of(out, name).items()) if "auto" in runs and "joint+sam" in runs]
    if not seeds:
        return None
    alone = [run for run in seeds[0] if run.endswith(" alone")]
    task = task or SingleLabel(seeds[0]["auto"]["test/fused"].shape[1])
    said = {
        run: [outputs(runs[run], task, pool=run == "auto") for runs in seeds]
        for run in (*alone, "joint", "joint+sam", "auto")
    }
    target = torch.from_numpy(seeds[0]["auto"]["test/target"])
    sign = -1 if lower_is_better(metric) else 1

    def score(run: str, seed: int, rows: Tensor | slice = slice(None)) -> float:
        return task.scores({"fused": said[run][seed][rows]}, target[rows], None, (metric,)).get(
            f"fused/{metric}", np.nan
        )

    mean = {run: float(np.mean([score(run, seed) for seed in range(len(seeds))])) for run in said}
    strict = max((run for run in said if run != "auto"), key=lambda run: sign * mean[run])
    rng, drawn = np.random.default_rng(0), [sign * (mean["auto"] - mean[strict])]
    for _ in range(SCORE_DRAWS):
        rows = torch.from_numpy(rng.integers(0, len(target), len(target)))
        chosen = rng.integers(0, len(seeds), len(seeds))
        drawn.append(float(np.mean([sign * (score("auto", s, rows) - score(strict, s, rows)) for s in chosen])))
    factor = 1 if sign < 0 else 100
    low, high = np.nanquantile(drawn[1:], [0.025, 0.975]) * factor
    digits = 1 if factor == 100 else 3
    best = max(alone, key=lambda run: sign * mean[run])
    shown = [f"{factor * mean[run]:.{digits}f}" for run in (best, "joint", "joint+sam", "auto")]
    counts = f"{len(seeds[0]['auto']['val/target'])}, {len(target)}"
    gain = f"{factor * drawn[0]:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return [name, counts, metric, *shown, gain, str(len(seeds))]


def against_reference(rows: Sequence[list[str] | None]) -> str:
    """A table of ``compared``."""
    header = ["data", "validation, test", "by", "best alone", "joint", "joint + SAM", "auto", "auto − strict", "seeds"]
    return table(header, [row for row in rows if row is not None])


def write_parts(
    out: Path,
    groups: Mapping[str, Sequence[str]],
    sized: Sequence[str],
    rare: Sequence[str],
    tasks: Mapping[str, Task],
    crossfitted: tuple[Sequence[int], int],
) -> None:
    """All tables of which there are runs."""
    for group, names in groups.items():
        put(f"several, {group}", several(out, names))
    developed = groups["developed"]
    put("mixed", mixed(out, developed))
    put("late", late(out, developed))
    put("crossfit", crossfit(out, developed, *crossfitted))
    put("sizes", against_reference([compared(out, name) for name in sized]))
    by_class = [compared(out, name, None, metric) for name in rare for metric in ("accuracy", "balanced_accuracy")]
    put("rare", against_reference(by_class))
    put("tasks", against_reference([compared(out, name, task, task.monitor) for name, task in tasks.items()]))
