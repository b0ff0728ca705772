"""Opens a trained model: a run directory, or a folder written by ``save_pretrained``."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from counterpoise._checks import nearest, per_modality
from counterpoise._extras import require
from counterpoise.data.arrays import ArraySplit
from counterpoise.data.readers import Reader
from counterpoise.engine import CheckpointError, Trainer
from counterpoise.engine.checkpoint import content_of
from counterpoise.engine.checkpoint import load as load_checkpoint
from counterpoise.engine.record import MODEL
from counterpoise.engine.saving import put_selected
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.metrics.result import result_of
from counterpoise.model import MultimodalModel
from counterpoise.portable import Description, UntrustedError, made
from counterpoise.task import SingleLabel, Task, task_of
from counterpoise.trained.folder import CONFIG, WEIGHTS, read_state
from counterpoise.trained.model import TrainedModel, has_own_rule

BEST = "best.ckpt"


class NeedsPythonError(ValueError):
    """A part of a model was not written down; the message has the call that gives it."""


def described_at(folder: Path) -> Description | None:
    """What a folder says of its model, without looking at its weights; None where it says nothing readable."""
    try:
        values, file = _values(folder)
        return Description.from_dict(values, str(file))
    except (OSError, ValueError, CheckpointError):
        return None


def load(
    source: str | PathLike[str],
    *,
    trust: bool = False,
    build: Callable[[], MultimodalModel] | None = None,
    method: Method | None = None,
    readers: Mapping[str, Reader] | None = None,
    accelerator: str = "auto",
) -> TrainedModel:
    """A trained model, ready to predict; its data are not needed.

    Args:
        source: a run directory, of the command line or of a ``Trainer(run_dir=...)``; a folder that
            ``save_pretrained`` wrote; or the name of a model on the hub, "owner/name".
        trust: import the classes outside this package that it is made of; importing runs code.
        build: makes the model, where what it is made of could not be written down (classes inside functions, say).
        method: how it was trained, where that could not be written down.
        readers: modality -> its reader, where that could not be written down.
        accelerator: "auto", "cpu", "gpu".

    Raises:
        FileNotFoundError: there is no such model, or no finished epoch of it.
        CheckpointError: its files are damaged, or of another model than ``build`` makes.
        UntrustedError: it is made of classes outside this package, and ``trust`` is False.
        ValueError: it was written by a newer version, or needs ``build``, ``method`` or ``readers``.
    """
    folder = _folder(source)
    values, file = _values(folder)
    description = Description.from_dict(values, str(file))
    per_modality("readers", readers or {}, description.modalities)
    given = {"build": build, "method": method, "readers": readers}
    _refuse_unknown(description, folder, given)
    try:
        model = description.model(trust=trust) if build is None else build()
        method = made(description.method, Method, trust=trust) if method is None else method
        read_by = description.readers(readers, trust=trust)
        collates = description.collates(trust=trust)
        loss = made(description.loss, Loss, trust=trust) if description.loss else None
    except UntrustedError as error:
        raise UntrustedError(
            f"{source} is made of classes outside this package: {error}. To load it imports them, and importing runs "
            f"code. Pass trust=True when you know where it comes from, cp.load({str(source)!r}, trust=True); nothing "
            "was imported."
        ) from error
    saved, result = (_of_run if file.name == MODEL else _of_folder)(folder, values)
    with content_of(folder / (BEST if file.name == MODEL else WEIGHTS)):
        trainer = _trainer(description, model, method, loss, accelerator, saved)
    return TrainedModel(trainer, description, read_by, result, collates)


def _folder(source: str | PathLike[str]) -> Path:
    """The folder that is meant, fetched from the hub where there is none of that name here."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    beside = [p.name for p in folder.parent.glob("*") if p.is_dir()]
    near = nearest(folder.name, beside, cutoff=0.82)
    if near or not isinstance(source, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise FileNotFoundError(f"There is no folder {folder}.{near}")
    try:
        require(f"There is no folder {folder}. A look at the hub", "huggingface_hub")
    except ImportError as error:
        raise FileNotFoundError(str(error)) from error
    from counterpoise.trained.hub import fetched

    return fetched(source)


def _values(folder: Path) -> tuple[dict[str, Any], Path]:
    """What a folder says of its model, and in which file; FileNotFoundError when it says nothing."""
    file = next((folder / name for name in (MODEL, CONFIG) if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"{folder} holds no trained model: it has neither {MODEL} (of a run) nor {CONFIG} (of save_pretrained)."
        )
    try:
        return json.loads(file.read_text(encoding="utf-8")), file
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error


def _of_run(folder: Path, values: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The selected checkpoint of a run, and its result when it has ended."""
    if not (folder / BEST).is_file():
        raise FileNotFoundError(f"{folder} has no {BEST} yet: no epoch of it is finished.")
    return load_checkpoint(folder / BEST), result_of(folder)


def _of_folder(folder: Path, values: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    return read_state(folder, values), values.get("result")


def _refuse_unknown(description: Description, folder: Path, given: Mapping[str, Any]) -> None:
    """NeedsPythonError naming the call to make, where a part was not written down and is not given."""
    parts = {"encoders": "build", "fusion": "build", "method": "method", "readers": "readers"}
    examples = {
        "build": "build=lambda: cp.build_model(...)",
        "method": "method=...",
        "readers": "readers={'audio': ...}",
    }
    needs = {argument: given[argument] for part, argument in parts.items()
             if any(reason.startswith(part) for reason in description.unknown)}  # fmt: skip
    if missing := [argument for argument, value in needs.items() if value is None]:
        call = ", ".join(examples[argument] for argument in missing)
        reasons = "; ".join(description.unknown)
        raise NeedsPythonError(
            f"{folder} cannot be made again from what is written down: {reasons}. Say how it was made: "
            f"cp.load({str(folder)!r}, {call})."
        )


def _trainer(
    description: Description,
    model: MultimodalModel,
    method: Method,
    loss: Loss | None,
    accelerator: str,
    saved: Mapping[str, Any],
) -> Trainer:
    """What evaluates as it did in training; of float16 without such a GPU, in full precision."""
    no_half = accelerator == "cpu" or not torch.cuda.is_available()
    precision = "32-true" if description.precision == "16-mixed" and no_half else description.precision
    trainer = Trainer(
        model,
        method,
        loss=loss,
        batch_size=description.batch_size,
        precision=precision,
        monitor=description.monitor,
        metrics=description.metrics,
        accelerator=accelerator,
        progress=False,
    )
    if has_own_rule(method):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were said when it was trained
            trainer.check(_blank(description))
    if loss is None:  # no prediction needs it
        warnings.warn("The loss of this model was not written down; evaluate reports the task's own.", stacklevel=3)
        saved = {**saved, "loss": trainer.loss.state_dict()}
    put_selected(trainer.current, {**saved, "method": saved["method"] if has_own_rule(method) else {}})
    return trainer


def _blank(description: Description) -> ArraySplit:
    """Two samples of zeros: methods size their buffers by some."""
    inputs = {
        m: torch.zeros(2, *((1,) if described.shape is None else described.shape), dtype=described.of_torch)
        for m, described in description.modalities.items()
    }
    task = task_of(description.task)
    return ArraySplit(inputs, _zeros(task), task)


def _zeros(task: Task) -> torch.Tensor:
    return torch.zeros(2, dtype=torch.int64) if isinstance(task, SingleLabel) else torch.zeros(2, task.width)
