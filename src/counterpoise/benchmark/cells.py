"""One score of a table: its numbers, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from counterpoise.metrics import SHARES, lower_is_better

PASSES = ("forward", "backward")
"""Columns of what training cost: 1 is every encoder over every training sample once."""
NAMES = {"seconds": "training time", "forward": "forward passes", "backward": "backward passes"}
"""Titles of columns that are no scores."""


@dataclass(frozen=True)
class Difference:
    """Mean of the differences to the baseline, seed by seed or fold by fold, with the t interval (None for one).

    Attributes:
        mean: of the differences.
        low: lower end of the interval.
        high: upper end.
        n: how many differences.
        p: of no difference, two-sided; None for one.
        corrected: the same by Holm, for all rows that a column compares with the baseline.
        clear: ``corrected`` is below the level of the intervals.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None
    corrected: float | None = None
    clear: bool = False

    @property
    def without_zero(self) -> bool:
        """Whether there is an interval, and it leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Cell:
    """One score of one method over its seeds.

    Attributes:
        values: seed -> score.
        mean: over the seeds.
        sd: sample standard deviation (n - 1); None for one seed.
        asked: number of seeds that should be there.
        difference: to the baseline, on the seeds both have; None for the baseline itself.
        rank: 1 for the best of the column, 2 for the second; None otherwise, and for incomplete cells.
        below: the mean is worse than that of the best modality trained alone (fused scores only).
    """

    values: Mapping[int, float]
    mean: float
    sd: float | None
    asked: int
    difference: Difference | None = None
    rank: int | None = None
    below: bool = False

    @property
    def n(self) -> int:
        """Number of seeds that are there."""
        return len(self.values)

    @property
    def complete(self) -> bool:
        """Whether every seed that was asked for is there."""
        return self.n >= self.asked


def column_title(column: str) -> str:
    """``"fused/accuracy"`` -> ``"fused accuracy (%)"``; the split is said once, in the notes."""
    unit = "%" if metric_of(column) in SHARES else "s" if column == "seconds" else ""
    whose, _, metric = column.rpartition("/")
    name = NAMES.get(column, f"{whose} {metric.rsplit('.', 1)[-1]}".strip())  # of an import path its end
    return f"{name} ({unit})" if unit else name


def cell_text(column: str, cell: Cell | None) -> str:
    """``"71.2 ± 0.8 †"``; a dash when there is nothing."""
    if cell is None:
        return "–"
    spread = f" ± {number_text(column, cell.sd)}" if cell.sd is not None else ""
    return f"{number_text(column, cell.mean)}{spread}{' †' if cell.below else ''}"


def small_print(column: str, cell: Cell | None) -> str:
    """What stands below the score: ``"n=3/5"`` when seeds are missing, and the difference to the baseline."""
    missing = f"n={cell.n}/{cell.asked}" if cell is not None and not cell.complete else ""
    return " · ".join(text for text in (missing, difference_text(column, cell)) if text)


def difference_text(column: str, cell: Cell | None) -> str:
    """``"Δ +1.2 [-0.3, +2.7]"``; empty when there is none.

    For the fused scores that say how good a prediction is only, so that the table stays narrow.
    """
    if cell is None or cell.difference is None or not says_how_good(column):
        return ""
    d = cell.difference
    return f"Δ {change_text(column, d)}" + (" *" if d.clear else "") + ("" if d.n == cell.n else f" n={d.n}")


def change_text(column: str, d: Difference) -> str:
    """``"+1.2 [−0.3, +2.7]"``; of one seed without an interval. Of shares in points of per cent."""
    mean = number_text(column, d.mean, signed=True)
    if d.low is None or d.high is None:
        return mean
    return f"{mean} [{number_text(column, d.low, signed=True)}, {number_text(column, d.high, signed=True)}]"


def number_text(column: str, value: float, *, signed: bool = False) -> str:
    """A score in its usual unit: shares in percent with one digit, times with one, the rest with three."""
    share = metric_of(column) in SHARES
    digits = 1 if share or column in NAMES else 3
    text = f"{100 * value if share else value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def says_how_good(column: str) -> bool:
    """Whether a fused score ranks models: not losses and calibration errors, where a weak model that is unsure wins.

    Errors in the units of the target do.
    """
    unsure_wins = lower_is_better(column) and metric_of(column) in {"loss", *SHARES}
    return column.startswith("fused/") and not unsure_wins


def named(metric: str) -> str:
    """A metric and its direction, where less is better; of a loss everybody knows."""
    return metric.rsplit(".", 1)[-1] + (" (less is better)" if lower_is_better(metric) and metric != "loss" else "")


def metric_of(column: str) -> str:
    """``"audio/accuracy"`` -> ``"accuracy"``."""
    return column.rsplit("/", 1)[-1]
