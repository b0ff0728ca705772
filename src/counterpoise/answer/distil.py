"""One model that has learned what several say: ``cp.distil`` and what the command has in common with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._digests import digest_of_weights
from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.answer.auto import Answer, answered, trained
from counterpoise.answer.failures import Attempt
from counterpoise.answer.kept import compare
from counterpoise.answer.preset import DEFAULT, Preset
from counterpoise.answer.student import Student, Taught
from counterpoise.data.progress import after_two_seconds
from counterpoise.data.readers.stored import arrays_of
from counterpoise.data.split import Split, Splits
from counterpoise.data.table_split import TableSplit
from counterpoise.engine import Trainer
from counterpoise.engine.reuse import unencoded
from counterpoise.engine.setup import check_split, check_whole
from counterpoise.metrics.result import NAME, result_text
from counterpoise.portable import Input, input_of, label_columns
from counterpoise.trained import TrainedModel, load
from counterpoise.trained.intake import intakes
from counterpoise.trained.samples import samples_of

LABEL = "student"


@dataclass(frozen=True)
class Teacher:
    """A trained model that is learned from.

    Attributes:
        name: what it is called.
        trainer: with its weights.
        result: of its run; empty when nothing was measured.
        inputs: modality -> how it is read.
    """

    name: str
    trainer: Trainer
    result: Mapping[str, Any]
    inputs: Mapping[str, Input]


def distil(
    teacher: str | PathLike[str] | TrainedModel | Answer,
    data: Splits,
    encoders: Mapping[str, Any] | None = None,
    *,
    unlabelled: Any = None,
    root: str | PathLike[str] | None = None,
    run_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    budget: float | str | None = None,
    fusion: Any = None,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Answer:
    """One model, the student, that has learned what a teacher predicts, such as several runs as one (``auto(runs=3)``).

    It is trained as ``auto`` trains, on what the teacher says of the training samples and of samples without labels. At
    prediction it costs one run of ``auto``. Validation has its labels, and the test part is not read before the end.
    Without ``unlabelled`` it was no better than one run of ``auto`` where that was measured.

    Args:
        teacher: a trained model, an answer of ``auto``, or the folder of either.
        data: what the teacher was trained on, or data with the same modalities and classes, read the same way.
        encoders: as for ``auto``.
        unlabelled: more samples of some of the modalities, as ``TrainedModel.predict`` takes them: a table, a frame, a
            dict of columns, a list of dicts; or a split, or an ``.npz`` file. Labels in it are not used.
        root: what paths in ``unlabelled`` are relative to; by default the folder of a table.
        run_dir: where the run and ``answer.html`` are written; None writes nothing.
        resume: go on with what is in ``run_dir``.
        budget: seconds of training in all, or text such as "30m".
        fusion: as for ``auto``.
        seed: of weights, order and everything random.
        progress: show the epochs.
        **options: of ``Trainer``.

    Returns:
        The student; ``result["teacher"]`` and the page say what it keeps.

    Raises:
        ValueError: the teacher does not fit the data, a sample has no modality that it reads, and as ``auto``.

    Source: Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015,
    https://arxiv.org/abs/1503.02531
    """
    folder, known = None if run_dir is None else Path(run_dir), teacher_of(teacher)
    taught = teach(known, data, unlabelled, root=root)
    preset = preset_of(known).fused_by(fusion)
    options = {"seed": seed, "progress": progress, **options}
    made, failed = trained(
        taught, encoders, preset, 1, folder, resume=resume, budget=budget, options=options, label=LABEL
    )
    return graduated(made[0], taught, known, failed, folder)


def preset_of(teacher: Teacher) -> Preset:
    """What the student of a teacher is trained by."""
    return replace(DEFAULT, method=Student, settings={**DEFAULT.settings, "teacher": teacher.name})


def teacher_of(given: str | PathLike[str] | TrainedModel | Answer) -> Teacher:
    """A teacher, from a model, an answer, or the folder of one."""
    if isinstance(given, str | PathLike):
        return replace(teacher_of(load(given)), name=str(given))
    if not isinstance(given, TrainedModel | Answer):
        raise TypeError(f"teacher must be a trained model, an answer of auto, or a folder; got {type(given).__name__}.")
    result = given.result or {}
    several = f", {result['runs']} runs" if "runs" in result else ""
    name = str(result.get("label") or given.trainer.method.label) + several
    if isinstance(given, TrainedModel):
        return Teacher(name, given.trainer, result, given.description.modalities)
    split = unencoded(given.trainer.current.train_split)
    return Teacher(name, given.trainer, result, {m: input_of(split, m, []) for m in given.model.modalities})


def teach(teacher: Teacher, data: Splits, unlabelled: Any = None, *, root: str | PathLike[str] | None = None) -> Splits:
    """The data, with what the teacher says of the training part and of samples without labels in the place of labels.

    Raises:
        ValueError: as ``distil``.
    """
    check_whole(data)
    inputs = {m: input_of(data.train, m, []) for m in data.modalities}
    _fits(teacher, data, inputs)
    parts = [data.train]
    if unlabelled is not None:
        parts.append(_more(data, unlabelled, inputs, root))
    told = torch.cat(
        [_said(teacher, data, part, what) for part, what in zip(parts, ("training", "unlabelled"), strict=False)]
    )
    return replace(data, train=Taught(parts, told, digest_of_weights(teacher.trainer.model)))


def graduated(made: Attempt, taught: Splits, teacher: Teacher, failed: Sequence[str], folder: Path | None) -> Answer:
    """What the student keeps, in its result and on its page.

    Args:
        made: the trained student.
        taught: as ``teach`` gave it.
        teacher: whose student it is.
        failed: the experts that failed in training.
        folder: of the run; None writes nothing.
    """
    assert isinstance(taught.train, Taught)
    unlabelled = sum(len(part) for part in taught.train.sources[1:])
    kept = compare(teacher.name, teacher.trainer, teacher.result, made.trainer, made.result, taught, unlabelled)
    result = {**made.result, "teacher": asdict(kept)}
    if folder is not None and made.trainer.fabric.is_global_zero:
        write_text(folder / NAME, result_text(result))
    again = Attempt(made.trainer, made.trials, result)
    return answered(again, taught, failed, folder, ("its teacher", teacher.trainer), kept)


def _fits(teacher: Teacher, data: Splits, inputs: Mapping[str, Input]) -> None:
    """ValueError where the teacher knows other modalities or classes than the data, or reads them otherwise."""
    task, names = teacher.trainer.model.task, teacher.trainer.model.modalities
    if set(names) != set(data.modalities):
        raise ValueError(
            f"The teacher {teacher.name} has the modalities {', '.join(names)}; the data have "
            f"{', '.join(data.modalities)}. Give it the data that it was trained on, or train another on these."
        )
    if (task.kind, task.names) != (data.task.kind, data.task.names):
        raise ValueError(
            f"The teacher {teacher.name} predicts {task!r} ({task.kind}); the data have {data.task!r} "
            f"({data.task.kind}). Both must have the same {task.plural}, in the same order."
        )
    for m, here in inputs.items():
        there = teacher.inputs[m]
        for what in ("reader", "learnt", "shape", "dtype"):
            a, b = getattr(there, what), getattr(here, what)
            if None not in (a, b) and to_json(a) != to_json(b):
                raise ValueError(
                    f"The teacher {teacher.name} reads {m!r} otherwise than the data do: {what} {_short(a)} and "
                    f"{_short(b)}. Read the data with the teacher's readers, cp.load(...).readers."
                )


def _short(value: Any) -> str:
    text = to_json(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _more(data: Splits, unlabelled: Any, inputs: Mapping[str, Input], root: str | PathLike[str] | None) -> Split:
    """The samples without labels as a split, read as the training part is."""
    if isinstance(unlabelled, Split | Splits):
        check_split(unlabelled)
    whole = Path(root) if root is not None else None
    if isinstance(unlabelled, str | PathLike) and Path(unlabelled).suffix == ".npz":
        unlabelled = _of_file(Path(unlabelled), data.modalities)
    readers, collates = dict(data.train.readers), dict(data.train.collate)
    more, _ = samples_of(unlabelled, intakes(inputs, readers, collates), data.modalities, data.task, whole)
    if missing := [m for m in data.modalities if m not in more.modalities]:
        raise ValueError(f"unlabelled: there is no modality {missing[0]!r}; where all samples lack it, give Nones.")
    if not len(more):
        raise ValueError("unlabelled: there are no samples. Leave it out, or give some.")
    for m, here in inputs.items():
        example, shape = more.example(m), here.shape
        if example is not None and shape is not None and tuple(example.shape) != tuple(shape):
            raise ValueError(
                f"unlabelled: {m!r} has samples of shape {tuple(example.shape)}, those of the training part have "
                f"{tuple(shape)}."
            )
    _refuse_known(data, more)
    if labels := _labels(data, unlabelled, more):
        warnings.warn(f"unlabelled: {labels} not used; the teacher says what to learn of these samples.", stacklevel=4)
    return more


def _of_file(path: Path, modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """Modality -> array, of an ``.npz`` file; of the others it is said that they are not used."""
    if not path.is_file():
        raise FileNotFoundError(f"unlabelled: there is no file {path}.")
    arrays = dict(arrays_of(str(path)))
    if others := [name for name in arrays if name not in modalities]:
        warnings.warn(f"unlabelled: of {path}, {', '.join(others)} are not used.", stacklevel=5)
    return {name: array for name, array in arrays.items() if name in modalities}


def _refuse_known(data: Splits, more: Split) -> None:
    """ValueError for samples that are the data set, or a part of it."""
    tables = [split.table.columns.path for split in (data.train, more) if isinstance(split, TableSplit)]
    files = [path.resolve() for path in tables if isinstance(path, Path)]
    if len(files) == 2 and files[0] == files[1]:
        raise ValueError(
            f"unlabelled: {tables[1]} is the table of the data set, and its test rows would be learned from. Give a "
            "table of other samples."
        )
    for name in ("train", "val", "test"):
        part = getattr(data, name)
        if part is not None and (more is part or more.fingerprint() == part.fingerprint()):
            raise ValueError(f"unlabelled: these are the {name} samples of the data set. Give other samples.")


def _labels(data: Splits, unlabelled: Any, more: Split) -> str:
    """What holds labels there, in words; nothing where nothing does."""
    if isinstance(unlabelled, Split):
        target = unlabelled.target
        known = target.isfinite() if target.is_floating_point() else target >= 0
        return "its targets are" if known.any() else ""
    columns = more.table.columns.names if isinstance(more, TableSplit) else getattr(unlabelled, "columns", ())
    names = [name for name in label_columns(data.train) if name in columns]
    return f"the column {names[0]!r} is" if names else ""


def _said(teacher: Teacher, data: Splits, part: Split, what: str) -> Tensor:
    """(n, width) outputs of the teacher for a part, in the terms of the data's task.

    Raises:
        ValueError: of some samples it says nothing.
    """
    trainer, there, outputs = teacher.trainer, list[Tensor](), list[Tensor]()
    batches = -(-len(part) // trainer.batch_size)
    for predictions in after_two_seconds(trainer.stream(part), batches, f"asking {teacher.name}"):
        there.append(predictions.anything())
        outputs.append(predictions.fused)
    silent = (~torch.cat(there)).nonzero().flatten().tolist()
    if silent:
        raise ValueError(
            f"{len(silent)} of {len(part)} {what} samples have none of the modalities that the teacher reads (the "
            f"first is {part.ids[silent[0]]!r}), so it says nothing of them. Leave them out."
        )
    return data.task.unshown(trainer.model.task.shown(torch.cat(outputs).double())).float()
