"""``counterpoise predict``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from counterpoise.cli.trained import open_run
from counterpoise.data.split import Split
from counterpoise.engine import Predictions


def main(arguments: Sequence[str]) -> int:
    """Write the probabilities of every row of a table."""
    parser = argparse.ArgumentParser(
        prog="counterpoise predict",
        description="Probabilities for every row of a table, fused and per modality; empty cells are absent modalities.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("table", help="CSV or Parquet file with the columns of the training table; no label needed")
    parser.add_argument("--out", required=True, help="CSV to write")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    if out.exists() and not options.force:
        raise ValueError(f"--out {out} exists. Pass --force to overwrite it.")
    trainer, job, samples = open_run(options.run, options.table)
    assert samples is not None
    assert job.classes is not None
    found = trainer.predict(samples)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "predicted", *(f"{n}:{c}" for n in found.named() for c in job.classes)])
        writer.writerows(_rows(found, samples, job.classes))
    print(f"{len(samples)} predictions in {out}.")
    return 0


def _rows(found: Predictions, samples: Split, classes: Sequence[str]) -> Iterator[list[object]]:
    """One row a sample; the cells of an absent modality are empty."""
    present = found.present or {}
    probabilities = {name: logits.softmax(1).tolist() for name, logits in found.named().items()}
    there = {name: present[name].tolist() if name in present else None for name in probabilities}
    for i, best in enumerate(found.fused.argmax(1).tolist()):
        row: list[object] = [samples.ids[i], classes[best]]
        for name, values in probabilities.items():
            mask = there[name]
            row += [f"{p:.6f}" for p in values[i]] if mask is None or mask[i] else [""] * len(classes)
        yield row
