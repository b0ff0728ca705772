"""``results.json`` of several sets -> docs/benchmarks/across.md: what holds over sets.

    python benchmarks/real/across.py runs/real/pie runs/real/handwritten runs/real/mosi_bclstm ...

Only rows that every set has, with all seeds, are compared. What stands between the two "reading" marks of an existing
page is kept.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from summarise import BEGIN, END, line, write

from counterpoise import methods
from counterpoise.benchmark import summarize
from counterpoise.benchmark.plan import UNIMODAL
from counterpoise.metrics.comparing import holm, t_interval
from counterpoise.recipe.trained import open_run

SCORE, BASELINE, ALPHA = "fused/accuracy", "Joint", 0.05


class Scores(NamedTuple):
    """Rows x sets, of what was reached on test (accuracy in points) and what it took (seconds)."""

    sets: list[str]
    rows: list[str]
    score: np.ndarray
    seconds: np.ndarray
    alone: list[float]  # set -> of the modality that is best alone
    left: Sequence[str]  # rows that lack a seed somewhere
    apart: Sequence[float]  # set -> on validation, the mean of the modalities' models trained alone less joint


def read(folders: Sequence[Path]) -> Scores:
    """The means over the seeds."""
    tables, left, apart = {}, set[str](), []
    for folder in folders:
        records = json.loads((folder / "results.json").read_text(encoding="utf-8"))["runs"]
        seeds = len({record["seed"] for record in records})
        rows = tables[folder.name] = summarize(records, seeds=seeds, columns=[SCORE, "seconds"]).rows
        apart.append(above_joint(folder, records))
        left |= {row for row, cells in rows.items() if len(cells[SCORE].values) < seeds}
    shared = [row for row in next(iter(tables.values())) if all(row in rows for rows in tables.values())]
    shared = [row for row in shared if row not in left]

    def means(column: str) -> np.ndarray:
        return np.array([[rows[row][column].mean for rows in tables.values()] for row in shared])

    alone = [
        100 * max(cells[SCORE].mean for row, cells in rows.items() if row.startswith(UNIMODAL))
        for rows in tables.values()
    ]
    return Scores(list(tables), shared, 100 * means(SCORE), means("seconds"), alone, sorted(left), apart)


def above_joint(folder: Path, records: Sequence[Mapping[str, Any]]) -> float:
    """Mean over the seeds, in points: the mean of the probabilities of models trained alone, less joint training."""
    modalities = max((record["modalities"] for record in records), key=len)
    differences = []
    for joint in (record for record in records if record["label"] == BASELINE):
        total, target = torch.zeros(()), torch.zeros(())
        for m in modalities:
            (run,) = folder.glob(f"runs/{UNIMODAL}-modality-{m}-s{joint['seed']}-*/")
            trainer, job, _ = open_run(str(run))
            predicted = trainer.predict(job.splits.val)
            total, target = total + predicted.fused.double().softmax(1), predicted.target
        hits = (total.argmax(1) == target).double().mean()
        differences.append(100 * (float(hits) - joint["val"][SCORE]))
    return float(np.mean(differences))


def ranks(scores: Scores) -> np.ndarray:
    """Rows x sets; 1 is the best, equals share."""
    return stats.rankdata(-scores.score, axis=0)


def critical_difference(rows: int, sets: int) -> float:
    """Of Nemenyi's test: mean ranks that differ by less are not told apart (Demšar 2006, section 3.2.2)."""
    q = float(stats.studentized_range.ppf(1 - ALPHA, rows, np.inf)) / math.sqrt(2)
    return q * math.sqrt(rows * (rows + 1) / (6 * sets))


def versus(scores: Scores, baseline: str = BASELINE) -> Mapping[str, np.ndarray]:
    """Row -> its differences to the baseline, by set."""
    reference = scores.score[scores.rows.index(baseline)]
    return {row: scores.score[i] - reference for i, row in enumerate(scores.rows) if row != baseline}


def over_sets(scores: Scores) -> list[str]:
    """The table of rows, by mean rank."""
    differences = versus(scores)
    intervals = {row: t_interval(d.tolist()) for row, d in differences.items()}
    p = holm({row: interval.p for row, interval in intervals.items() if interval.p is not None})
    mean_rank = ranks(scores).mean(1)
    cost = np.exp(np.log(scores.seconds / scores.seconds[scores.rows.index(BASELINE)]).mean(1))
    difference = f"Δ to {BASELINE}, 95 % interval over sets"
    head = ["row", "mean rank", difference, "p by Holm", "sets above, below", "worst set", "cost"]
    lines = [line(head), line(["---", *["---:"] * (len(head) - 1)])]
    for i in np.argsort(mean_rank):
        row, cells = scores.rows[i], ["–"] * 4
        if (d := differences.get(row)) is not None:
            worst, interval = int(d.argmin()), intervals[row]
            cells = [
                f"{signed(interval.mean)} [{signed(interval.low)}, {signed(interval.high)}]",
                f"{p[row]:.2f}" if row in p else "–",
                f"{(d > 0).sum()}, {(d < 0).sum()}",
                f"{signed(d[worst])} ({scores.sets[worst]})",
            ]
        lines.append(line([row, f"{mean_rank[i]:.1f}", *cells, f"{cost[i]:.1f}"]))
    return lines


def signed(points: float | None, digits: int = 1) -> str:
    """With so many digits behind the point and a true minus."""
    return "–" if points is None else f"{points:+.{digits}f}".replace("-", "−")


def by_set(scores: Scores) -> list[str]:
    """The table of sets: what its parts reach and who is best."""
    lines = [
        line(["set", "best alone", BASELINE, f"{BASELINE} − best alone", "best rows"]),
        line(["---", *["---:"] * 3, "---"]),
    ]
    joint = scores.score[scores.rows.index(BASELINE)]
    for i, name in enumerate(scores.sets):
        best = np.argsort(-scores.score[:, i])[:3]
        names = ", ".join(f"{scores.rows[j]} {scores.score[j, i]:.1f}" for j in best)
        cells = [f"{scores.alone[i]:.1f}", f"{joint[i]:.1f}", signed(joint[i] - scores.alone[i])]
        lines.append(line([name, *cells, names]))
    return lines


def families(scores: Scores) -> Mapping[str, list[int]]:
    """What the methods of a family change -> its rows."""
    rows: dict[str, list[int]] = {}
    for i, row in enumerate(scores.rows):
        if row in methods.__all__ and (family := getattr(methods, row).info.family) != "baseline":
            rows.setdefault(family, []).append(i)
    return dict(sorted(rows.items()))


def by_family(scores: Scores, what: str, values: Sequence[float]) -> list[str]:
    """The table of sets by a number of theirs, each family's median row beside it."""
    joint, beside = scores.score[scores.rows.index(BASELINE)], families(scores)
    medians = {family: np.median(scores.score[rows] - joint, axis=0) for family, rows in beside.items()}
    heads = [f"{family} ({len(rows)})" for family, rows in beside.items()]
    lines = [line(["set", what, *heads]), line(["---", *["---:"] * (1 + len(heads))])]
    lines += [
        line([scores.sets[i], signed(values[i]), *(signed(median[i]) for median in medians.values())])
        for i in np.argsort(values)
    ]
    ranked = [signed(float(stats.spearmanr(values, median).statistic), 2) for median in medians.values()]
    return [*lines, line(["rank correlation over the sets", "", *ranked])]


def picture(scores: Scores, path: Path) -> None:
    """Mean ranks with the critical difference; the small marks are the ranks on each set."""
    each = ranks(scores)
    order = np.argsort(each.mean(1))
    figure = Figure(figsize=(7.5, 0.22 * len(order) + 1.2), layout="constrained")
    ax = figure.subplots()
    at = np.arange(len(order))
    best, reach = each.mean(1)[order[0]], critical_difference(len(order), len(scores.sets))
    ax.axvspan(best, best + reach, color="0.92", zorder=0, label=f"critical difference, {reach:.1f}")
    ax.plot(each[order], at, "o", ms=3, color="0.6", zorder=1)
    ax.plot(each.mean(1)[order], at, "D", ms=6, color="tab:blue", zorder=2, label="mean")
    ax.plot([], [], "o", ms=3, color="0.6", label="on one set")
    ax.set_yticks(at, [scores.rows[i] for i in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlim(0, len(order) + 1)
    ax.set_xlabel(f"rank of the test accuracy among {len(order)} rows, mean of {len(scores.sets)} sets")
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=120)


def _legend(scores: Scores) -> str:
    friedman = stats.friedmanchisquare(*scores.score)
    k, n = scores.score.shape
    return (
        f"Differences in points of test accuracy, t interval over the {n} sets; p of the same t test, corrected by "
        f"Holm for {k - 1} comparisons. Cost: seconds of training, {BASELINE} = 1, geometric mean. Friedman's test "
        f"that all rows are alike: χ² = {friedman.statistic:.1f}, p = {friedman.pvalue:.2g}. By Nemenyi's test rows "
        f"whose mean ranks are closer than {critical_difference(k, n):.1f} are not told apart."
    )


def page(scores: Scores, reading: str) -> str:
    """The whole page."""
    k, n = scores.score.shape
    gain = scores.score[scores.rows.index(BASELINE)] - scores.alone
    sets = ", ".join(f"[{name}]({name}.md)" for name in scores.sets)
    parts = [
        "# What holds over sets",
        f"The means over the seeds of {k} rows on {n} sets with one label a sample ({sets}). A set is one observation "
        "here, whatever its size."
        + (f" Left out, for seeds whose training diverged: {', '.join(scores.left)}." if scores.left else ""),
        "## Reading",
        f"{BEGIN}\n{reading}\n{END}",
        "## Rows",
        "\n".join(over_sets(scores)),
        _legend(scores),
        "![mean ranks](across.png)",
        "## Sets",
        "\n".join(by_set(scores)),
        "## What of a set goes with the result",
        f"The median difference to {BASELINE} of the rows of a family (in brackets how many; which method is of which, "
        "README's table says), beside what joint training gains over the modality that is best alone, and Spearman's "
        f"rank correlation of the two over the {n} sets. On these sets it was found, on others it has to be shown.",
        "\n".join(by_family(scores, f"{BASELINE} − best alone", gain.tolist())),
        "The same, beside what the mean of the probabilities of models trained alone, one a modality, has above "
        f"{BASELINE} on validation.",
        "\n".join(by_family(scores, "mean of models trained alone − Joint, validation", scores.apart)),
        "## Command",
        f"```bash\npython benchmarks/real/across.py {' '.join(f'runs/real/{s}' for s in scores.sets)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders with results.json, each named like its set")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks"), help="folder of the page")
    given = parser.parse_args()
    scores = read(given.folders)
    write(given.docs / "across.md", lambda reading: page(scores, reading))
    picture(scores, given.docs / "across.png")


if __name__ == "__main__":
    main()
