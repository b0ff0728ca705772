"""Checks that data, model, method and settings fit together, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, number, per_modality, whole
from counterpoise._names import made
from counterpoise.data.arrays import ArraySplit
from counterpoise.data.sampling import SAMPLERS
from counterpoise.data.split import Split, Splits
from counterpoise.data.targets import checked_weights, no_targets
from counterpoise.data.tensors import tensor_of
from counterpoise.engine.optim import SGD, Constant, Optimizer, Schedule
from counterpoise.engine.torch_optim import optimizer_of
from counterpoise.engine.watching import Observers
from counterpoise.losses import Likelihood, Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.observer import Observer
from counterpoise.task import SingleLabel, Task

PARTS: dict[str, tuple[type, str]] = {
    "model": (MultimodalModel, "build_model(...)"),
    "method": (Method, "one of counterpoise.methods"),
    "optimizer": (Optimizer, "SGD(lr=0.05)"),
    "schedule": (Schedule, "Cosine()"),
    "loss": (Loss, "counterpoise.losses.CrossEntropy()"),
}
"""Arguments of ``Trainer``: what they must be, and how to make one."""


def check_numbers(*, epochs: int, batch_size: int, sam: float, clip_norm: float | None, num_workers: int) -> None:
    """ValueError naming the argument that is out of range."""
    whole("epochs", epochs, low=1)
    number("sam", sam, low=0)
    whole("num_workers", num_workers, low=0)
    if clip_norm is not None:
        number("clip_norm", clip_norm, above=0)
    if batch_size == 1:
        raise ValueError(
            "batch_size must be at least 2; got 1. Batch normalisation and the scores of most methods are "
            "undefined on one sample."
        )
    whole("batch_size", batch_size, low=2)


def check_metrics(task: Task, metrics: Sequence[str] | None, monitor: str | None) -> tuple[str, tuple[str, ...]]:
    """What selects and what is reported, the task's own where None; ValueError when a metric is not one of the task."""
    monitor, metrics = monitor or task.monitor, task.reported if metrics is None else metrics
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a list of names, as [{metrics!r}]; got the text {metrics!r}.")
    for name in (*metrics, monitor):
        if task.metric(name).lower_is_better is None and name == monitor:
            raise ValueError(f"monitor={name!r} cannot select: it does not say whether more or less of it is better.")
    return monitor, tuple(metrics)


def check_sampler(task: Task, sampler: str | None) -> None:
    """ValueError for an unknown one, and where there are no classes."""
    if sampler is not None and not isinstance(task, SingleLabel):
        cure = {"multi-label": "loss=BinaryCrossEntropy('balanced') raises what is rare (its pos_weight)"}
        cure |= {"regression": "sample_weight makes samples count differently"}
        raise ValueError(f"sampler={sampler!r} is about classes; these targets are {task.kind}: {cure[task.kind]}.")
    if sampler is not None:
        choice("sampler", sampler, SAMPLERS)


def check_order(method: Method, sampler: str | None) -> None:
    """ValueError where a sampler draws the rows of an epoch and the method chooses their order."""
    if sampler is not None:
        raise ValueError(
            f"sampler={sampler!r} draws the samples of an epoch in an order of its own, and {type(method).__name__} "
            "chooses theirs. Leave sampler out."
        )


def check_stopping(method: Method, patience: int | None) -> None:
    """ValueError for a patience that is no number of epochs, and where the method must train for all of its own."""
    if patience is None:
        return
    whole("early_stopping", patience, low=1)
    if reason := method.must_finish():
        raise ValueError(
            f"early_stopping: {type(method).__name__} must train for all its epochs: {reason}. Leave early_stopping "
            "out; the weights that were best on validation are selected in any case."
        )


def check_parts_of(method: Method, accumulate: int, samples: int) -> None:
    """ValueError for parts that a batch of so many samples does not have, and a method that needs all of it."""
    if whole("accumulate", accumulate, low=1) == 1:
        return
    reason = method.whole_batch or (None if type(method).step is Method.step else "its step is its own")
    if reason is not None:
        raise ValueError(
            f"accumulate={accumulate}: {type(method).__name__} needs whole batches: {reason}. Leave accumulate out; "
            "encoders.Checkpointed around the encoders needs less memory with every method."
        )
    if accumulate > samples:
        raise ValueError(
            f"accumulate must be at most {samples}, the samples of a batch in each process; got {accumulate}."
        )


def check_modalities(method: Method, modalities: Sequence[str]) -> None:
    """ValueError when there are fewer than the method needs."""
    if len(modalities) < method.min_modalities:
        raise ValueError(
            f"{type(method).__name__} needs at least {method.min_modalities} modalities; this model has "
            f"{len(modalities)} ({', '.join(modalities)}). Add a modality, "
            "or choose a method that takes fewer (`counterpoise methods` lists M)."
        )


def check_task(method: Method, task: Task) -> None:
    """ValueError when the method is not defined for what is predicted."""
    if not isinstance(task, method.tasks):
        kinds = " and ".join(kind.kind for kind in method.tasks)
        raise ValueError(
            f"{type(method).__name__} is defined for {kinds} targets; these are {task.kind}. "
            "`counterpoise methods` lists which method takes which."
        )


class Parts(NamedTuple):
    """What trains, made where it was named."""

    method: Method
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss


def parts_of(model: MultimodalModel, method: Any, optimizer: Any, schedule: Any, loss: Any) -> Parts:
    """The parts of a trainer, the defaults where they are None; ValueError for what is none, and unknown names."""
    method, optimizer = made("method", method), optimizer_of(optimizer)
    schedule, loss = made("schedule", schedule), made("loss", loss)
    check_parts(model=model, method=method, optimizer=optimizer, schedule=schedule, loss=loss)
    loss = loss or Likelihood()
    loss.prepare(model.task)
    return Parts(method, optimizer or SGD(), schedule or Constant(), loss)


def check_parts(**parts: object) -> None:
    """ValueError naming the argument of ``Trainer`` that is another thing than it must be; None is a default."""
    for argument, part in parts.items():
        kind, example = PARTS[argument]
        if part is None or (isinstance(part, kind) and (argument != "method" or "_modules" in vars(part))):
            continue
        if isinstance(part, kind):
            raise ValueError(f"{type(part).__name__}.__init__ must call super().__init__() before anything else.")
        given = f"the class {part.__name__}" if isinstance(part, type) else repr(part).splitlines()[0]
        raise ValueError(f"{argument} must be of the class {kind.__name__}, such as {example}; got {given}.")


def watching(observers: Sequence[Observer], own: Sequence[Observer]) -> Observers:
    """Who watches a run, our own last; ValueError when something else is among them."""
    if isinstance(observers, Observer):
        raise ValueError("observers must be a list; put the observer in brackets.")
    for observer in observers:
        if not isinstance(observer, Observer):
            raise ValueError(
                f"observers must be made from subclasses of counterpoise.engine.Observer; got {observer!r}."
            )
    return Observers([*observers, *own])


def check_method(model: MultimodalModel, method: Method) -> None:
    """ValueError when the model lacks what the method needs."""
    check_modalities(method, model.modalities)
    check_task(method, model.task)
    if method.own_heads and not model.fusion.has_own_heads:
        raise ValueError(
            f"{type(method).__name__} trains one head per modality beside the fused one; this "
            f"{type(model.fusion).__name__} has none. Build the model with heads=True, "
            "e.g. build_model(encoders, 'Concat', num_classes=..., heads=True)."
        )


def check_training(
    model: MultimodalModel,
    method: Method,
    splits: Mapping[str, Split],
    *,
    batch_size: int,
    monitor: str,
    metrics: Sequence[str],
) -> None:
    """ValueError when ``splits`` lacks the one to train on or the one to select by, or they do not fit the rest."""
    for name in ("train", "val"):
        if name not in splits:
            raise ValueError(f"fit needs a split to train on and one to select by; {name} is missing: fit(train, val).")
    train, val = splits["train"], splits["val"]
    check_data(model, method, train, batch_size=batch_size)
    check_data(model, method, val)
    check_monitor(model.task, monitor, metrics, val)
    if isinstance(train.task, SingleLabel):
        _warn_of_unseen(train, val)
    some = train.present or {}
    never = [m for m in model.modalities if m in some and not some[m].any()]
    if never:
        shown = ", ".join(map(repr, never))
        warnings.warn(
            f"No training sample has the modality {shown}: its encoder stays as it was made, and what the fusion makes "
            "of it is random. Leave the modality out, or divide the samples so that some training samples have it.",
            stacklevel=5,
        )


def _warn_of_unseen(train: Split, val: Split) -> None:
    """A warning for classes that validation samples have and no training sample."""
    seen, asked = (set(split.target.unique().tolist()) for split in (train, val))
    gone = [train.classes[c] for c in sorted(asked - seen)]
    if gone:
        shown = ", ".join(map(repr, gone[:5])) + (", ..." if len(gone) > 5 else "")
        warnings.warn(
            f"No training sample has the class {shown}, validation samples have: it cannot be learned.", stacklevel=6
        )


def check_monitor(task: Task, monitor: str, metrics: Sequence[str], val: Split) -> None:
    """ValueError when the metric that selects cannot be said of these samples, whatever the prediction is."""
    anything = torch.randn(len(val), task.width, generator=torch.Generator().manual_seed(0))
    imported = [name for name in metrics if "." in name]  # these fail now, or not at all
    if f"fused/{monitor}" not in task.scores({"fused": anything}, val.target, None, (monitor, *imported)):
        raise ValueError(
            f"monitor={monitor!r} is undefined on the {len(val)} validation samples: no class or label there "
            "has both sides, or a number is constant. Choose another monitor, such as 'loss', or other samples."
        )


def check_split(split: object) -> None:
    """ValueError for anything but one part of a data set."""
    if isinstance(split, Splits):
        raise ValueError(
            "One part of the data set is needed here, as data.train, data.val or data.test; got all of it."
        )
    if not isinstance(split, Split):
        raise ValueError(
            f"A split of a data set is needed here, as data.val of data = from_arrays(...); got {type(split).__name__}."
        )


def unlabelled(
    samples: Mapping[str, Any], model: MultimodalModel, method: Method, only: Collection[str] | None
) -> ArraySplit:
    """Arrays by modality as a split without labels; ValueError where they do not fit the model."""
    reads = model.select(method.reads(model.modalities) if only is None else only)
    per_modality("samples", samples, model.modalities)
    if missing := [m for m in reads if m not in samples]:
        rest = tuple(m for m in reads if m in samples)
        cure = f" Pass only={rest!r} to predict without it." if rest else ""
        raise ValueError(f"samples: modality {missing[0]!r} is missing.{cure}")
    inputs = {m: tensor_of(x, f"samples[{m!r}]") for m, x in samples.items()}
    lengths = {m: len(x) if x.ndim > 1 else None for m, x in inputs.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        shapes = ", ".join(f"{m}: {tuple(x.shape)}" for m, x in inputs.items())
        raise ValueError(f"samples must be (n, ...) with one n; got {shapes}.")
    count = len(next(iter(inputs.values())))
    return ArraySplit(inputs, no_targets(model.task, count), model.task)


def check_whole(splits: object) -> None:
    """ValueError for anything but a whole data set, and when training would see the test split of it."""
    if not isinstance(splits, Splits):
        raise ValueError(
            f"run takes a whole data set, as from_arrays(...) and Table(...).splits() give it; got "
            f"{type(splits).__name__}. For splits of your own: fit(train, val), or Splits(train, val, test)."
        )
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


def check_data(model: MultimodalModel, method: Method, split: Split, *, batch_size: int | None = None) -> None:
    """ValueError when a split does not fit the model, or does not fill a batch of training."""
    check_split(split)
    missing = [m for m in method.reads(model.modalities) if m not in split.modalities]
    if missing:
        raise ValueError(
            f"The model has modality {missing[0]!r}, the data have {', '.join(split.modalities)}. "
            "Name the encoders after the modalities of the data."
        )
    for m in method.reads(model.modalities):
        _refuse_reader(m, model.encoders[m], split)
    if split.task.kind != model.task.kind:
        raise ValueError(
            f"The model is built for {model.task.kind} targets, the data have {split.task.kind} ones. Build it with "
            "build_model(..., task=data.task)."
        )
    if len(split.classes) != model.num_classes:
        raise ValueError(
            f"The model has {model.num_classes} classes, the data {len(split.classes)} ({', '.join(split.classes[:5])}"
            f"{', ...' if len(split.classes) > 5 else ''}). Build it with num_classes={len(split.classes)}."
        )
    if len(split) == 0:
        raise ValueError("The split has no samples.")
    if batch_size is not None and len(split) < batch_size:
        raise ValueError(
            f"batch_size={batch_size} is larger than the {len(split)} training samples. "
            f"Pass batch_size={max(2, min(len(split), 32))} or less."
        )
    split.task.check(split.target)
    if split.weight is not None:
        checked_weights(split.weight, len(split), "The weight of this split", lambda i: f"sample {split.ids[i]!r}")


def _refuse_reader(modality: str, encoder: nn.Module, split: Split) -> None:
    """ValueError when the reader of a modality has another setting than its encoder was trained with (``expects``)."""
    reader, inner = split.readers.get(modality), encoder
    while isinstance(further := getattr(inner, "encoder", None), nn.Module) and not hasattr(inner, "expects"):
        inner = further  # of Frozen, FineTuned and Projected
    for name, wanted in getattr(inner, "expects", {}).items():
        given = getattr(reader, name, wanted)
        if given != wanted:
            raise ValueError(
                f"The encoder of {modality!r} needs {name}={wanted!r}, and its reader has {given!r}. Pass "
                f"{type(reader).__name__}({name}={wanted!r}): --data.modalities.{modality}.{name} {wanted}."
            )


def warn_if_scales_cancel(method: Method, optimizer: str, scale_free: bool) -> None:
    """A warning when the method scales gradients and the optimizer divides a constant scale out again."""
    if scale_free and method.edits_by_scale:
        warnings.warn(
            f"{type(method).__name__} scales gradients, and {optimizer} divides a constant scale out "
            "again: only its changes from step to step act. Prefer SGD, or a method that sets learning rates.",
            stacklevel=4,
        )


def check_rows(
    model: MultimodalModel, method: Method, count: int, visible: Mapping[str, Tensor] | None, *, batch_size: int
) -> None:
    """ValueError when the rows that a method chose to train on fill no batch, or its masks do not fit them."""
    if count < batch_size:
        raise ValueError(
            f"{type(method).__name__} leaves {count} training samples, fewer than batch_size={batch_size}. "
            "Lower batch_size."
        )
    for m, mask in (visible or {}).items():
        model.select([m])
        if len(mask) != count:
            raise ValueError(f"present[{m!r}] must have one entry per row: {count} rows, {len(mask)} entries.")
