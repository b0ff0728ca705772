"""Checks that data, model, method and settings fit together, before anything is trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from counterpoise._checks import did_you_mean, number
from counterpoise.data.split import Split, Splits
from counterpoise.metrics.classification import METRICS

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


def check_numbers(*, epochs: int, batch_size: int, sam: float, clip_norm: float | None, num_workers: int) -> None:
    """ValueError naming the argument that is out of range."""
    number("epochs", epochs, low=1)
    number("sam", sam, low=0)
    number("num_workers", num_workers, low=0)
    if clip_norm is not None:
        number("clip_norm", clip_norm, above=0)
    if batch_size < 2:
        raise ValueError(
            f"batch_size must be at least 2; got {batch_size}. Batch normalisation and the scores of most methods are "
            "undefined on one sample."
        )


def check_method(trainer: Trainer) -> None:
    """ValueError when the model lacks what the method needs, or a metric is unknown."""
    model, method = trainer.model, trainer.method
    for name in ("fused", "shared"):
        if name in model.modalities:
            raise ValueError(f"A modality cannot be called {name!r}: scores and parameter groups use that name.")
    for name in (*trainer.metrics, trainer.monitor):
        if name not in METRICS:
            raise ValueError(did_you_mean("metric", name, METRICS))
    if len(model.modalities) < method.min_modalities:
        raise ValueError(
            f"{type(method).__name__} needs at least {method.min_modalities} modalities; this model has "
            f"{len(model.modalities)} ({', '.join(model.modalities)}). Add a modality, "
            "or choose a method that takes fewer (`counterpoise methods` lists M)."
        )
    if method.own_heads and not model.fusion.has_own_heads:
        raise ValueError(
            f"{type(method).__name__} trains one head per modality beside the fused one; this "
            f"{type(model.fusion).__name__} has none. Build the model with heads=True, "
            "e.g. build_model(encoders, 'Concat', num_classes=..., heads=True)."
        )


def check_data(trainer: Trainer, split: Split, *, training: bool = False) -> None:
    """ValueError when a split does not fit the model or the batch size."""
    model = trainer.model
    missing = [m for m in trainer.method.reads(model.modalities) if m not in split.modalities]
    if missing:
        raise ValueError(
            f"The model has modality {missing[0]!r}, the data have {', '.join(split.modalities)}. "
            "Name the encoders after the modalities of the data."
        )
    if len(split.classes) != model.num_classes:
        raise ValueError(
            f"The model has {model.num_classes} classes, the data {len(split.classes)} ({', '.join(split.classes[:5])}"
            f"{', ...' if len(split.classes) > 5 else ''}). Build it with num_classes={len(split.classes)}."
        )
    if len(split) == 0:
        raise ValueError("The split has no samples.")
    if training and len(split) < trainer.batch_size:
        raise ValueError(
            f"batch_size={trainer.batch_size} is larger than the {len(split)} training samples. "
            f"Pass batch_size={max(2, min(len(split), 32))} or less."
        )
    low, high = int(split.target.min()), int(split.target.max())
    if low < 0 or high >= model.num_classes:
        raise ValueError(
            f"Labels must lie in 0..{model.num_classes - 1}; found {low if low < 0 else high}. "
            "Unlabelled rows can be predicted, not trained on or evaluated."
        )


def check_splits(splits: Splits) -> None:
    """ValueError when the test split is also what is trained on or what selects the weights."""
    test = splits.test
    if test is None:
        return
    for name, other in {"train": splits.train, "val": splits.val}.items():
        if test is other or test.fingerprint() == other.fingerprint():
            raise ValueError(
                f"The test split is the {name} split: its scores would be those of samples that training has seen. "
                "Divide the training samples instead (from_arrays(..., val=0.15) does it by seed), or pass "
                "Splits(train, val) without a test split."
            )


def warn_if_scales_cancel(trainer: Trainer) -> None:
    """A warning when the method scales gradients and the optimizer divides a constant scale out again."""
    if trainer.settings.scale_free and trainer.method.edits_by_scale:
        name, optimizer = type(trainer.method).__name__, type(trainer.settings).__name__
        warnings.warn(
            f"{name} scales gradients, and {optimizer} divides a constant scale out again: only its changes from "
            "step to step act. Prefer SGD, or a method that sets learning rates.",
            stacklevel=4,
        )


def check_rows(trainer: Trainer) -> None:
    """ValueError when the rows that a method chose to train on fill no batch, or its masks do not fit them."""
    count = len(trainer.train_split) if trainer.rows is None else len(trainer.rows)
    if count < trainer.batch_size:
        raise ValueError(
            f"{type(trainer.method).__name__} leaves {count} training samples, fewer than "
            f"batch_size={trainer.batch_size}. Lower batch_size."
        )
    for m, mask in (trainer.visible or {}).items():
        trainer.model.select([m])
        if len(mask) != count:
            raise ValueError(f"present[{m!r}] must have one entry per row: {count} rows, {len(mask)} entries.")
