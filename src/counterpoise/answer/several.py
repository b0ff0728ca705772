"""Several runs as one model: their predictions averaged kind by kind, then pooled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from counterpoise.answer.failures import Attempt
from counterpoise.data.split import Splits
from counterpoise.encoders.side_by_side import SideBySide
from counterpoise.engine import Trainer
from counterpoise.engine.replicas import precision_of
from counterpoise.engine.result import result_of
from counterpoise.engine.selection import calibrate
from counterpoise.fusions.committee import Committee
from counterpoise.methods import Joint
from counterpoise.metrics import result as stored
from counterpoise.model import MultimodalModel
from counterpoise.portable.description import described
from counterpoise.trained import TrainedModel
from counterpoise.types import FUSED

SEEDS_APART = 1000
"""Between the seeds of two runs, so that those of several answers differ."""


def trained_already(trainer: Trainer, data: Splits) -> dict[str, Any] | None:
    """The result of one of several runs that has ended, its trainer with the selected weights; None of any other."""
    where = Path(trainer.run_dir or "")
    result = stored.result_of(where)
    if result is None or result.get("out_of_time"):
        return None
    trainer.restore(where / "best.ckpt", data.val)
    trainer.current.open(data.train, data.val)
    return result


def together(runs: Sequence[Attempt], data: Splits, folder: Path | None, *, name: str, label: str) -> Attempt:
    """One model of finished runs of the same recipe, its pool fitted on validation.

    Args:
        runs: at least one, with their selected weights in evaluation mode.
        data: what they were trained on.
        folder: where it is written, as ``TrainedModel.save_pretrained`` does; None writes nothing.
        name: of the data.
        label: of the model in tables.
    """
    first = runs[0].trainer
    reads = first.method.reads(first.model.modalities)
    trainer = Trainer(
        _one_model([made.trainer.model for made in runs], reads), Joint(), batch_size=first.batch_size,
        monitor=first.monitor, metrics=first.current.metrics, loss=first.loss, fabric=first.fabric, progress=False,
        label=label,
    )  # fmt: skip
    run = trainer.current
    run.open(data.train, data.val)
    calibrate(run)
    results = [made.result for made in runs]
    costs = {key: _sum([r["cost"][key] for r in results]) for key in ("cpu_seconds", "forward", "backward")}
    own = result_of(run, data.test, data=name, label=label)
    result = {
        **own,
        "runs": len(runs),
        "each": [_monitored(one) for one in results],
        "seconds": _sum([r["seconds"] for r in results]),
        "epochs": _sum([r["epochs"] for r in results]),
        "cost": {**own["cost"], **costs},
        **({"out_of_time": True} if any(r.get("out_of_time") for r in results) else {}),
    }
    if folder is not None:
        _write(trainer, data, result, folder, name)
    return Attempt(trainer, runs[0].trials, result)


def _monitored(result: dict[str, Any]) -> dict[str, float]:
    """Part -> score of a run, in its monitor."""
    key = f"{FUSED}/{result['monitor']}"
    return {part: result[part][key] for part in ("val", "test") if key in (result.get(part) or {})}


def _sum(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values)


def _one_model(models: Sequence[MultimodalModel], reads: Sequence[str]) -> MultimodalModel:
    """The models side by side; an encoder that several have with the same weights, such as a frozen one, runs once."""
    encoders, dims, starts = dict[str, nn.Module](), dict[str, int](), [dict[str, int]() for _ in models]
    for m in reads:
        kept: list[tuple[nn.Module, int]] = []
        width = 0
        for model, start in zip(models, starts, strict=True):
            encoder = model.encoders[m]
            at = next((at for other, at in kept if _equal(other, encoder)), None)
            start[m] = width if at is None else at
            if at is None:
                kept.append((encoder, width))
                width += model.fusion.dims[m]
        encoders[m], dims[m] = SideBySide([encoder for encoder, _ in kept]), width
    fusion = Committee(dims, models[0].num_classes, members=[model.fusion for model in models], starts=starts)
    return MultimodalModel(encoders, fusion, task=models[0].task, pool=True).requires_grad_(False).eval()


def _equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return type(one) is type(other) and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _write(trainer: Trainer, data: Splits, result: dict[str, Any], folder: Path, name: str) -> None:
    run = trainer.current
    description = described(
        run.model, run.method, run.loss, data.train, batch_size=run.batch_size, precision=precision_of(run.fabric),
        monitor=run.monitor, metrics=run.metrics, data=name,
    )  # fmt: skip
    if description.unknown:
        warnings.warn(
            f"The model of all runs is not written, as it could not be made again: {'; '.join(description.unknown)}. "
            "The runs are there, and each of them can be opened with what makes it.",
            stacklevel=4,
        )
        return
    TrainedModel(trainer, description, dict(data.train.readers), result).save_pretrained(folder, overwrite=True)
