"""What must be said below a table, so that its rows are not taken for more alike than they are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


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


def selection_notes(records: Sequence[Mapping[str, Any]], split: str) -> list[str]:
    """How many validation scores the weights of each row are the best of, when that differs, and what it flatters.

    Args:
        records: contents of ``result.json`` files.
        split: the one shown.
    """
    groups: dict[int, dict[str, list[float]]] = {}
    for record in records:
        label, key = str(record.get("label") or record["method"]), f"fused/{record.get('monitor', 'accuracy')}"
        shown, val = record[split].get(key), (record.get("val") or {}).get(key)
        found = groups.setdefault(int(record.get("epochs") or 0), {}).setdefault(label, [])
        if split != "val" and shown is not None and val is not None:
            found.append(val - shown)
    if len(groups) < 2 or 0 in groups:
        return []
    parts = []
    for count, rows in sorted(groups.items()):
        gaps = [gap for found in rows.values() for gap in found]
        above = f"; on average {statistics.fmean(gaps):+.3f} against {split}" if gaps else ""
        parts.append(f"{count} ({', '.join(rows)}{above})")
    return [
        f"Each row's weights are the best of as many validation scores as it has epochs: {', '.join(parts)}. "
        "The best of more flatters the validation score more."
    ]
