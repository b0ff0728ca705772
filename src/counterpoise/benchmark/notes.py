"""What must be said below a table, so that its rows are not taken for more alike than they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from counterpoise.benchmark.cells import number_text, says_how_good
from counterpoise.metrics import lower_is_better

if TYPE_CHECKING:
    from counterpoise.benchmark.summary import Summary


def read_out_notes(unimodal: Mapping[str, str]) -> list[str]:
    """What the scores of single modalities are of, as a sentence for below a table.

    Args:
        unimodal: label of a row -> what predicts from one modality alone in it.
    """
    groups: dict[str, list[str]] = {}
    for label, what in unimodal.items():
        groups.setdefault(what, []).append(label)
    if len(groups) < 2:
        return [f"A modality's score is of {what}." for what in groups]
    parts = "; ".join(f"{what} ({', '.join(labels)})" for what, labels in groups.items())
    return [f"A modality's score is of {parts}: compare it within a row, and across rows of one read-out only."]


def with_candidates(record: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A result with ``candidates``: the validation score of every epoch, which its weights were selected by.

    Args:
        record: content of ``result.json``.
        history: the epochs of ``metrics.jsonl``.
    """
    scores = [entry.get(f"val/fused/{record.get('monitor', 'accuracy')}") for entry in history]
    return {**record, "candidates": [s for s in scores if isinstance(s, int | float) and math.isfinite(s)]}


def expected_best(scores: Sequence[float], count: int) -> float:
    r"""The expectation of the largest of ``count`` scores drawn from all of them without replacement.

    .. math:: \sum_{i=k}^{n} x_{(i)} \binom{i-1}{k-1} / \binom{n}{k}

    for the k-th of n scores in rising order.

    Args:
        scores: at least ``count``.
        count: at least 1.
    """
    ways = math.comb(len(scores), count)
    return sum(x * (math.comb(i, count - 1) / ways) for i, x in enumerate(sorted(scores)))


def difference_notes(summary: Summary) -> list[str]:
    """What a difference to the baseline is, and which of many are more than chance."""
    level = f"{100 * (1 - summary.confidence):g} %"
    text = f"Δ: difference to {summary.baseline} on equal {summary.units}, with its {100 * summary.confidence:g} % t "
    text += f"interval over the {summary.units}"
    if summary.ratio:
        text += f"; folds share what they learn from, so its variance is times 1/k + {summary.ratio:.3g} "
        text += "(Nadeau and Bengio, 2003)"
    columns = [
        [cells[c].difference for cells in summary.rows.values() if c in cells]
        for c in summary.columns
        if says_how_good(c)
    ]
    tested = [[d for d in column if d is not None and d.corrected is not None] for column in columns]
    if not any(tested):
        return [f"{text}."]
    count = max(map(len, tested))
    many = f", by Holm's correction for the {count} comparisons of a column" if count > 1 else ""
    if any(difference.clear for column in tested for difference in column):
        apart = "; intervals have none" if many else ""
        return [f"{text}.", f"*: more than chance at {level}{many}{apart}."]
    return [f"{text}.", f"No difference is more than chance at {level}{many}."]


def selection_notes(records: Sequence[Mapping[str, Any]], split: str) -> list[str]:
    """How many validation scores the weights of each row are the best of, when that differs, and what it flatters.

    Args:
        records: contents of ``result.json`` files, with ``candidates`` where they are known.
        split: the one shown.
    """
    groups: dict[int, dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        label = str(record.get("label") or record["method"])
        groups.setdefault(int(record.get("epochs") or 0), {}).setdefault(label, []).append(record)
    if len(groups) < 2 or 0 in groups:
        return []
    fewest, parts, flattered = min(groups), [], []
    for count, rows in sorted(groups.items()):
        above = _above_test([record for members in rows.values() for record in members], split)
        parts.append(f"{count} ({', '.join(rows)}{above})")
        flattered += [f"{text} for {label}" for label, members in rows.items() if (text := _flattered(members, fewest))]
    than = f"than the mean best of any {fewest} of its epochs, what training longer gained included"
    by = f": the best is better by {'; '.join(flattered)} {than}" if flattered else ""
    return [
        f"Each row's weights are the best of as many validation scores as it has epochs: {', '.join(parts)}. "
        f"The best of more flatters the validation score more{by}."
    ]


def _above_test(records: Sequence[Mapping[str, Any]], split: str) -> str:
    """How far the selected validation scores are above those of the split that is shown."""
    gaps = []
    for record in records:
        key = _monitored(record)
        shown, val = record[split].get(key), (record.get("val") or {}).get(key)
        if split != "val" and shown is not None and val is not None:
            gaps.append(val - shown)
    if not gaps:
        return ""
    return f"; on average {number_text(_monitored(records[0]), statistics.fmean(gaps), signed=True)} against {split}"


def _flattered(records: Sequence[Mapping[str, Any]], fewest: int) -> str:
    """By how much the best of all epochs is better than that of ``fewest`` of them, in the mean over the seeds."""
    excess = []
    for record in records:
        sign = -1 if lower_is_better(_monitored(record)) else 1
        scores = [sign * score for score in record.get("candidates", ())]
        if len(scores) > fewest:
            excess.append(max(scores) - expected_best(scores, fewest))
    return number_text(_monitored(records[0]), statistics.fmean(excess)) if excess else ""


def _monitored(record: Mapping[str, Any]) -> str:
    return f"fused/{record.get('monitor', 'accuracy')}"
