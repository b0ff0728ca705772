"""Opens a trained model: a run directory, or a folder written by ``save_pretrained``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from counterpoise._checks import nearest
from counterpoise.data.arrays import ArraySplit
from counterpoise.data.readers import Reader
from counterpoise.engine import CheckpointError, Trainer
from counterpoise.engine.checkpoint import content_of
from counterpoise.engine.checkpoint import load as load_checkpoint
from counterpoise.engine.record import MODEL
from counterpoise.engine.saving import put_selected
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.portable import Description, UntrustedError, made
from counterpoise.task import SingleLabel, Task, task_of
from counterpoise.trained.model import TrainedModel

BEST = "best.ckpt"


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
        source: a run directory, of the command line or of a ``Trainer(run_dir=...)``.
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
    folder = Path(source).expanduser()
    description = _description(folder)
    given = {"build": build, "method": method, "readers": readers}
    _refuse_unknown(description, folder, given)
    try:
        model = description.model(trust=trust) if build is None else build()
        method = made(description.method, Method, trust=trust) if method is None else method
        found = dict(readers or {}) or description.readers(trust=trust)
        loss = made(description.loss, Loss, trust=trust) if description.loss else None
    except UntrustedError as error:
        raise UntrustedError(
            f"{source} is made of classes outside this package: {error}. To load it imports them, and importing runs "
            f"code. Pass trust=True when you know where it comes from, cp.load({str(source)!r}, trust=True); nothing "
            "was imported."
        ) from error
    weights = folder / BEST
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} has no {BEST} yet: no epoch of it is finished.")
    saved = load_checkpoint(weights)
    with content_of(weights):
        trainer = _trainer(description, model, method, loss, accelerator, saved)
    return TrainedModel(trainer, description, found)


def _description(folder: Path) -> Description:
    """What a folder says of its model; FileNotFoundError when it says nothing."""
    file = folder / MODEL
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.glob("*") if p.is_dir()]
        raise FileNotFoundError(f"There is no folder {folder}.{nearest(folder.name, beside, cutoff=0.82)}")
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no trained model: it has no {MODEL}.")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    return Description.from_dict(values, str(file))


def _refuse_unknown(description: Description, folder: Path, given: Mapping[str, Any]) -> None:
    """ValueError naming the call to make, where a part was not written down and is not given."""
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
        raise ValueError(
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
    """What evaluates as it did in training."""
    trainer = Trainer(
        model,
        method,
        loss=loss,
        batch_size=description.batch_size,
        precision=description.precision,
        monitor=description.monitor,
        metrics=description.metrics,
        accelerator=accelerator,
        progress=False,
    )
    own_rule = type(method).predict is not Method.predict or type(method).decide is not Method.decide
    if own_rule:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were said when it was trained
            trainer.check(_blank(description))
    put_selected(trainer.current, {**saved, "method": saved["method"] if own_rule else {}})
    return trainer


def _blank(description: Description) -> ArraySplit:
    """Two samples of zeros: methods size their buffers by some."""
    inputs = {
        m: torch.zeros(2, *(described.shape or (1,)), dtype=getattr(torch, described.dtype))
        for m, described in description.modalities.items()
    }
    task = task_of(description.task)
    return ArraySplit(inputs, _zeros(task), task)


def _zeros(task: Task) -> torch.Tensor:
    return torch.zeros(2, dtype=torch.int64) if isinstance(task, SingleLabel) else torch.zeros(2, task.width)
