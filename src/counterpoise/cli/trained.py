"""Opens a finished run to evaluate it or to predict with it."""

from __future__ import annotations

from pathlib import Path

from counterpoise.cli.job import Job, config_of, source_of
from counterpoise.cli.options import fit_parser
from counterpoise.data.source import Table
from counterpoise.data.split import Split
from counterpoise.engine import Trainer
from counterpoise.engine.checkpoint import load


def open_run(run: str, table: str | None = None) -> tuple[Trainer, Job, Split | None]:
    """The trained model of a run, its job, and the samples of another table.

    Args:
        run: the run directory.
        table: another CSV or Parquet file with the same columns; None for the run's own data.

    Raises:
        FileNotFoundError: no run, no finished epoch, no such table.
        CheckpointError: a damaged checkpoint.
        ValueError: another table for a run that was not trained on one.
    """
    parser = fit_parser()
    options = parser.parse_args(["--config", str(config_of(run))])
    best = Path(run) / "best.ckpt"
    saved = load(best)
    if table is None:
        job = Job(parser, options, source_of(parser, options.data), saved["classes"])
        trainer = job.trainer(run_dir=None, progress=False, devices=1, num_nodes=1)
        trainer.restore(best, job.splits.val)
        return trainer, job, None
    if not options.data.class_path.endswith(".Table"):
        raise ValueError(
            f"{run} was not trained on a table, so {table} cannot be read the same way. "
            "Train on a CSV, or use Trainer.predict from Python."
        )
    data = options.data.clone()
    data.init_args.path, data.init_args.root, data.init_args.classes = table, None, list(saved["classes"])
    source = source_of(parser, data)
    assert isinstance(source, Table)
    samples = source.samples()
    job = Job(parser, options, source, saved["classes"])
    trainer = job.trainer(run_dir=None, progress=False, devices=1, num_nodes=1)
    trainer.restore(best, samples)
    return trainer, job, samples
