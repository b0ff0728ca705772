"""What a prepared data set should look like, what it looks like, and a table of both."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from counterpoise.data.readers.base import without_window


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        item: what is looked at.
        expected: what it should be, as text.
        found: what it is.
        ok: whether that is right.
    """

    item: str
    expected: str
    found: str
    ok: bool

    @classmethod
    def same(cls, item: str, expected: object, found: object) -> Check:
        """Right when both are equal."""
        return cls(item, str(expected), str(found), expected == found)


def render(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table, what is off marked; then one line of summary."""
    rows = [("item", "expected", "found", ""), *((c.item, c.expected, c.found, "" if c.ok else "OFF") for c in checks)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    off = sum(not c.ok for c in checks)
    return "\n".join([*lines, "", f"{len(checks)} checks, {off} off"])


def counts(
    published: Mapping[str, Mapping[str, int]],
    samples: Sequence[Mapping[str, str]],
    excluded: Sequence[Mapping[str, str]],
) -> Iterator[Check]:
    """Samples per part and class against the published numbers; a key "train+val" is both parts together."""
    of = Counter((row["split"], row["label"]) for row in samples)
    out = Counter((row["split"], row["label"]) for row in excluded)
    for key, classes in published.items():
        parts = key.split("+")
        total, listed, left = sum(classes.values()), 0, 0
        rows = []
        for name, number in classes.items():
            there = sum(of[part, name] for part in parts)
            listed += there + sum(out[part, name] for part in parts)
            left += there
            rows.append(Check.same(f"{key}: {name}", number, there))
        yield Check.same(f"{key}: samples in the list", total, listed)
        yield Check.same(f"{key}: samples prepared", total, left)
        yield from rows


def leaks(samples: Sequence[Mapping[str, str]], shared_groups: int | None) -> Iterator[Check]:
    """Samples and groups that are in two parts.

    Args:
        samples: rows of the manifest.
        shared_groups: how many groups the published split has on both sides; None when there are no groups.
    """
    parts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in samples:
        parts["id", row["id"]].add(row["split"])
        if row.get("group"):
            parts["group", row["group"]].add(row["split"])
    twice = Counter(kind for (kind, _), where in parts.items() if len(where) > 1)
    yield Check.same("ids in two parts", 0, twice["id"])
    if shared_groups is not None:
        held = {g for (kind, g), where in parts.items() if kind == "group" and where > {"test"}}
        note = " (as published)" if shared_groups else ""
        # A folder with few samples shares fewer groups, which is no fault of the split.
        yield Check(
            f"groups both in test and outside{note}",
            f"at most {shared_groups}",
            str(len(held)),
            len(held) <= shared_groups,
        )


def same_content(out: Path, samples: Sequence[Mapping[str, str]], column: str) -> Check:
    """Files (or folders) of one column with equal bytes in two parts."""
    sizes: dict[int, list[Mapping[str, str]]] = defaultdict(list)
    for row in samples:
        if row[column]:
            sizes[sum(f.stat().st_size for f in _files(out / without_window(row[column])))].append(row)
    same: dict[str, set[str]] = defaultdict(set)
    for rows in sizes.values():
        if len({row["split"] for row in rows}) > 1:  # only files of equal size can be equal
            for row in rows:
                state = hashlib.blake2b(digest_size=16)
                for file in _files(out / without_window(row[column])):
                    state.update(file.read_bytes())
                same[state.hexdigest()].add(row["split"])
    return Check.same(f"{column}: equal files in two parts", 0, sum(len(parts) > 1 for parts in same.values()))


def missing(out: Path, samples: Sequence[Mapping[str, str]], column: str) -> Check:
    """Paths of one column that lead nowhere."""
    gone = [row[column] for row in samples if row[column] and not (out / without_window(row[column])).exists()]
    return Check(
        f"{column}: files that are gone", "0", f"{len(gone)}" + (f", first {gone[0]}" if gone else ""), not gone
    )


def between(item: str, values: Iterable[float], low: float, high: float) -> Check:
    """Right when every value is in [low, high]."""
    numbers = sorted(values)
    span = f"{numbers[0]:.4g} to {numbers[-1]:.4g}" if numbers else "none"
    return Check(item, f"{low:g} to {high:g}", span, bool(numbers) and low <= numbers[0] and numbers[-1] <= high)


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]
