"""``counterpoise predict``."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from counterpoise._files import writing
from counterpoise.cli.one_sample import add_modalities, predict_one, sample_of
from counterpoise.data.progress import after_two_seconds
from counterpoise.engine import Predictions
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import TRUST, open_table
from counterpoise.task import Regression, Task
from counterpoise.trained import described_at


def main(arguments: Sequence[str]) -> int:
    """Write the probabilities, or numbers, of every row of a table, or print what is said of one sample."""
    parser = Options(
        prog="counterpoise predict",
        description="Probabilities for every row of a table, fused and per modality; empty cells are absent ones. Or "
        "the answer for one sample, --MODALITY VALUE for those that it has, and what each modality says.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument(
        "table", nargs="?", help="CSV or Parquet file with the columns of the training table; no label needed"
    )
    parser.add_argument("--out", help="CSV to write")
    parser.add_argument("--json", action="store_true", help="of one sample: print JSON")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    folders = (Path(a) for a in arguments if not a.startswith("-"))
    described = next(filter(None, map(described_at, folders)), None)  # wherever the run stands among the options
    add_modalities(parser, {} if described is None else described.modalities)
    options = parser.parse_args(arguments)
    if sample := sample_of(options):
        if options.table is not None or options.out is not None:
            raise UsageError("One sample (--MODALITY VALUE) is printed; leave TABLE and --out out.")
        predict_one(options.run, sample, trust=options.trust, as_json=options.json)
        return 0
    if options.table is None or options.out is None:
        names = " ".join(f"--{m} VALUE" for m in described.modalities) if described else "--MODALITY VALUE"
        raise UsageError(f"Name a TABLE and --out FILE, or one sample: {names}.")
    out = Path(options.out)
    if out.exists() and not out.is_file():
        raise UsageError(f"--out {out} is a folder or a device; give the name of a file.")
    if os.path.lexists(out) and not options.force:  # also a link to nothing
        raise UsageError(f"--out {out} exists. Pass --force to overwrite it.")
    if not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}.")
    trainer, samples = open_table(options.run, options.table, trust=options.trust)
    task = trainer.model.task
    done, empty, formulas = 0, 0, 0
    with writing(out, newline="") as file:
        writer = csv.writer(file)
        batches = -(-len(samples) // trainer.batch_size)
        for predictions in after_two_seconds(trainer.stream(samples), batches, "predicting"):
            names = [f"{n}:{c}" for n in predictions.named() for c in task.names]
            there = predictions.anything()
            rows = list(_rows(predictions, there, samples.ids[done : done + len(there)], task))
            written = [*([["id", "predicted", *names]] if not done else []), *rows]
            formulas += sum(_plain(cell) != cell for row in written for cell in row)
            writer.writerows([_plain(cell) for cell in row] for row in written)
            done, empty = done + len(there), empty + int((~there).sum())
    print(f"Wrote {out}: {len(samples)} rows of {_what(task)}.")
    if formulas:
        print(f"{formulas} cells that a spreadsheet would run as formulas begin with an apostrophe now.")
    if empty:
        print(f"{empty} rows lack every modality; their cells are empty.")
    return 0


def _what(task: Task) -> str:
    return "numbers" if isinstance(task, Regression) else "probabilities"


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay as they are."""
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or re.fullmatch(r"[+-][\d.]+([eE][+-]?\d+)?", cell):
        return cell
    return "'" + cell


def _rows(batch: Predictions, there: Tensor, ids: Sequence[str], task: Task) -> Iterator[list[str]]:
    """One row a sample; the cells of an absent modality are empty."""
    predictions = {name: task.predictions(outputs) for name, outputs in batch.named().items()}
    masks = {"fused": there, **(batch.present or {})}
    cells = {name: values.tolist() for name, values in predictions.items()}
    for i, said in enumerate(task.said(predictions["fused"])):
        row = [ids[i], said if there[i] else ""]
        for name, values in cells.items():
            shown = name not in masks or masks[name][i]
            row += [f"{p:.6f}" for p in values[i]] if shown else [""] * task.width
        yield row
