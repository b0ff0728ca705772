"""``counterpoise predict``."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from counterpoise.cli.messages import Options, UsageError
from counterpoise.cli.trained import open_run
from counterpoise.data.split import Split
from counterpoise.engine import Predictions


def main(arguments: Sequence[str]) -> int:
    """Write the probabilities of every row of a table."""
    parser = Options(
        prog="counterpoise predict",
        description="Probabilities for every row of a table, fused and per modality; empty cells are absent ones.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("table", help="CSV or Parquet file with the columns of the training table; no label needed")
    parser.add_argument("--out", required=True, help="CSV to write")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    if out.exists() and not options.force:
        raise UsageError(f"--out {out} exists. Pass --force to overwrite it.")
    if not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}.")
    trainer, job, samples = open_run(options.run, options.table)
    assert samples is not None
    assert job.classes is not None
    found = trainer.predict(samples)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "predicted", *(f"{n}:{c}" for n in found.named() for c in job.classes)])
        writer.writerows(_rows(found, samples, job.classes))
    print(f"Wrote {out}: {len(samples)} rows of probabilities.")
    empty = int((~_anything(found)).sum())
    if empty:
        print(f"{empty} rows lack every modality; their cells are empty.")
    return 0


def _anything(found: Predictions) -> Tensor:
    """(n,) bool: which samples have at least one modality."""
    masks = [(found.present or {}).get(m) for m in found.unimodal]
    everyone = torch.ones(len(found.fused), dtype=torch.bool)
    return torch.stack([everyone if mask is None else mask.cpu() for mask in masks]).any(0)


def _rows(found: Predictions, samples: Split, classes: Sequence[str]) -> Iterator[list[object]]:
    """One row a sample; the cells of an absent modality are empty."""
    present = found.present or {}
    probabilities = {name: logits.softmax(1).tolist() for name, logits in found.named().items()}
    there = {name: present[name].tolist() if name in present else None for name in probabilities}
    there["fused"] = _anything(found).tolist()
    for i, best in enumerate(found.fused.argmax(1).tolist()):
        row: list[object] = [samples.ids[i], classes[best] if there["fused"][i] else ""]
        for name, values in probabilities.items():
            mask = there[name]
            row += [f"{p:.6f}" for p in values[i]] if mask is None or mask[i] else [""] * len(classes)
        yield row
