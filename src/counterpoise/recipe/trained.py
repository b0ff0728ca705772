"""Opens a finished run to evaluate it or to predict with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from counterpoise._yaml import read_yaml
from counterpoise.data.columns import NoColumnError
from counterpoise.data.source import Table
from counterpoise.data.split import Split
from counterpoise.engine import Trainer
from counterpoise.engine.checkpoint import content_of, load
from counterpoise.portable import UntrustedError
from counterpoise.recipe.classes import foreign
from counterpoise.recipe.job import Job, config_of
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.recipe import Recipe
from counterpoise.recipe.spelling import Pairs, config, source_of
from counterpoise.task import Task, task_of
from counterpoise.trained import NeedsPythonError, TrainedModel
from counterpoise.trained import load as load_model

PYTHON = """{run} was trained from Python, so what makes its data is not written down there. Name a table of samples \
({option}), or from Python:
  model = cp.load("{run}")
  model.evaluate(data.test)  # or model.predict(samples)"""
"""What to do instead; ``fit`` writes all of it down."""
TRUST = "import the classes outside this package that the run's config.yaml names, such as a method of your own"


def loaded(run: str, *, trust: bool = False, accelerator: str = "auto") -> TrainedModel:
    """A trained model, wherever it comes from; errors name the options of the command line.

    Raises:
        UsageError: it names something outside this package and there is no trust, or it can be made from Python only.
    """
    try:
        return load_model(run, trust=trust, accelerator=accelerator)
    except UntrustedError as error:
        raise UsageError(
            f"{run} is made of classes that are not of this package. Pass --trust when you know where it comes from; "
            f"nothing was imported. ({error.__cause__})"
        ) from error
    except NeedsPythonError as error:
        raise UsageError(str(error)) from error


def open_table(run: str, table: str, *, labelled: bool = False, trust: bool = False) -> tuple[Trainer, Split]:
    """The trained model of a run, of the command line or from Python, and the samples of a table.

    Args:
        run: the run directory, or a folder that ``save_pretrained`` wrote.
        table: a CSV or Parquet file with the columns of the modalities.
        labelled: refuse rows of it without a label.
        trust: import what is outside this package.

    Raises:
        UsageError: as from ``open_run`` and ``loaded``.
    """
    if (Path(run) / "config.yaml").is_file() and not from_python(Path(run)):
        trainer, _, samples = open_run(run, table, labelled=labelled, trust=trust)
        assert samples is not None
        return trainer, samples
    if not Path(run).is_dir():
        config_of(run)  # says what is missing
    model = loaded(run, trust=trust)
    return model.trainer, model.samples(table, labelled=labelled)


def open_run(
    run: str, table: str | None = None, *, labelled: bool = False, trust: bool = False
) -> tuple[Trainer, Job, Split | None]:
    """The trained model of a run, its job, and the samples of another table.

    Args:
        run: the run directory.
        table: another CSV or Parquet file with the same columns; None for the run's own data. Its paths are
            relative to the folder that was stated for training, or else to its own.
        labelled: refuse rows of it without a label.
        trust: import what its configuration names outside this package.

    Raises:
        UsageError: it names something outside this package, and ``trust`` is False.
        FileNotFoundError: no run, no finished epoch, no such table.
        CheckpointError: a damaged checkpoint.
        ValueError: another table for a run that was not trained on one.
    """
    options, parser = _written(written_config(run)), fit_parser()
    if (others := foreign(options)) and not trust:
        raise UsageError(
            f"The configuration of {run} names what is not of this package: {', '.join(others)}. To open the run "
            "imports it, and importing runs code. Pass --trust when you know where it comes from; nothing was imported."
        )
    pairs = [("--config", json.dumps(options))]
    if _has_several(run):
        model = loaded(run, trust=trust)
        samples = None if table is None else model.samples(table, labelled=labelled)
        return model.trainer, Job(Recipe(parser, pairs)), samples
    best = Path(run) / "best.ckpt"
    if not best.is_file():
        raise FileNotFoundError(f"{run} has no best.ckpt yet: no epoch of it is finished.")
    with content_of(best):
        task = task_of(load(best)["task"])
    if table is None:
        job = Job(Recipe(parser, pairs), task)
        trainer = job.trainer(run_dir=None, progress=False, devices=1, num_nodes=1)
        trainer.restore(best, job.splits.val)
        return trainer, job, None
    source = _other_table(run, table, parser, pairs, task, labelled=labelled)
    samples = source.samples(labelled=labelled)
    job = Job(Recipe(parser, pairs, source), task, samples)
    trainer = job.trainer(run_dir=None, progress=False, devices=1, num_nodes=1)
    trainer.restore(best, samples)
    return trainer, job, samples


def _other_table(run: str, table: str, parser: ArgumentParser, pairs: Pairs, task: Task, *, labelled: bool) -> Table:
    """Another table, read as that of the run."""
    data = parser.parse_args([*pairs[0]]).data
    if not data.class_path.endswith(".Table"):
        raise ValueError(
            f"{run} was not trained on a table, so {table} cannot be read the same way. "
            "Train on a CSV, or use Trainer.predict from Python."
        )
    data.init_args.path, data.init_args.classes = table, list(task.names)
    data.init_args.task = task.kind  # nothing is guessed from other samples
    for role in ("split", "group"):  # roles of training; the other table may lack the columns
        data.init_args[role] = role
    data.init_args.folds, data.init_args.fold = None, 0
    if not labelled:
        data.init_args.weight = "sample_weight"
    try:
        source = source_of(parser, data)
    except NoColumnError as error:
        raise NoColumnError(f"{error} Where samples lack a modality, leave the cells of its column empty.") from error
    assert isinstance(source, Table)
    return source


def written_config(run: str) -> Path:
    """``config.yaml`` of a run directory; of several runs as one model (``auto --runs``), that of the first."""
    return config_of(Path(run) / "runs" / "0" if _has_several(run) else run)


def _has_several(run: str) -> bool:
    """Whether a folder holds several runs as one model."""
    folder = Path(run)
    return not (folder / "config.yaml").is_file() and (folder / "runs" / "0" / "config.yaml").is_file()


def from_python(run: Path) -> bool:
    """Whether a ``Trainer`` wrote a run directory, and not ``fit``."""
    stated = read_yaml((run / "config.yaml").read_text(encoding="utf-8"))
    return isinstance(stated, dict) and "layers" in stated and "data" not in stated


def _written(path: Path) -> dict[str, Any]:
    """The options of a run; UsageError when ``fit`` did not write them."""
    if from_python(path.parent):
        raise UsageError(PYTHON.format(run=path.parent, option="--table, or predict RUN TABLE"))
    return config(path)
