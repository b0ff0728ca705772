"""A trained model as plain data: what it is made of, what it predicts, and how its samples are read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from counterpoise.data.readers.base import Reader
from counterpoise.data.split import Split
from counterpoise.data.table_split import TableSplit
from counterpoise.fusions import Fusion
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.portable.alike import difference
from counterpoise.portable.objects import NotPortableError, dtype_of, imported, is_ours, made, written
from counterpoise.task import task_of

T = TypeVar("T")

FORMAT = 1
"""Of the files that hold descriptions; raised when an older version of this library could not read them."""


@dataclass(frozen=True)
class Input:
    """One modality.

    Attributes:
        reader: what makes a sample of a file, a text or another value, as ``written`` gives it; None where samples
            came as tensors.
        learnt: what it learnt from the training data.
        shape: of one sample as the encoder gets it; None where they differ, or no training sample had the modality.
        dtype: its type, as "float32".
        collate: what makes one tensor of samples that differ in shape, as ``written`` gives it; None where they do not,
            or where it cannot be imported (then samples that are predicted together must have one shape).
    """

    reader: Any
    learnt: Mapping[str, Any]
    shape: Sequence[int] | None
    dtype: str
    collate: Any = None

    @property
    def of_torch(self) -> torch.dtype:
        """``dtype``; ValueError where the text names none."""
        return dtype_of(self.dtype)


@dataclass(frozen=True)
class Description:
    """What a trained model is, without its weights.

    Attributes:
        task: as ``Task.to_dict`` has it.
        modalities: name -> how it is read, in order.
        encoders: modality -> its encoder, as ``written`` gives it; None where it could not be written down.
        fusion, method, loss: the same.
        pool: whether it predicts by a pool.
        batch_size: samples that are evaluated at once; another number rounds differently.
        precision: in which it is evaluated.
        monitor, metrics: what was selected by, and what is reported.
        data: name of the data set.
        labels: columns of its table that the labels were read from.
        versions: package -> the version that trained it.
        unknown: why parts of it could not be written down; their places hold None.
        format: of this description.
    """

    task: Mapping[str, Any]
    modalities: Mapping[str, Input]
    encoders: Mapping[str, Any]
    fusion: Any
    method: Any
    loss: Any
    pool: bool
    batch_size: int
    precision: str
    monitor: str
    metrics: Sequence[str]
    data: str
    labels: Sequence[str]
    versions: Mapping[str, str]
    unknown: Sequence[str] = ()
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as files hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Description:
        """The description that ``to_dict`` gave.

        Args:
            values: of a file.
            source: what messages call it.

        Raises:
            ValueError: of another version of this library, or no description.
        """
        number = values.get("format") if isinstance(values, Mapping) else None
        by = dict(values.get("versions") or {}).get("counterpoise", "of another version") if number else ""
        if isinstance(number, int) and number > FORMAT:
            raise ValueError(
                f"{source} has format {number}, written by counterpoise {by}; this version reads formats up to "
                f"{FORMAT}. Upgrade: pip install -U counterpoise."
            )
        try:
            inputs = {str(m): Input(**described) for m, described in values["modalities"].items()}
            named = {f.name: values[f.name] for f in fields(cls)}
            return cls(**{**named, "modalities": inputs})
        except (LookupError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            if isinstance(number, int):
                raise ValueError(
                    f"{source} was written by counterpoise {by}, in another way than this version reads ({said}). Load "
                    "it with that version, or train again."
                ) from error
            raise ValueError(f"{source} describes no trained model: {said}.") from error

    # -- what it describes -------------------------------------------------------------------------
    def model(self, *, trust: bool = False) -> MultimodalModel:
        """The model with new weights."""
        encoders = {m: made(self.encoders[m], nn.Module, trust=trust) for m in self.modalities}
        fusion = made(self.fusion, Fusion, trust=trust)
        return MultimodalModel(encoders, fusion, task=task_of(self.task), pool=self.pool)

    def readers(self, given: Mapping[str, Reader] | None = None, *, trust: bool = False) -> dict[str, Reader]:
        """Modality -> its reader, of those that have one; those that are ``given`` are not made."""
        given = given or {}
        return {
            m: given[m] if m in given else reader_of(described.reader, described.learnt, trust=trust)
            for m, described in self.modalities.items()
            if m in given or described.reader is not None
        }

    def collates(self, *, trust: bool = False) -> dict[str, Callable[[list[Tensor]], Tensor]]:
        """Modality -> what makes one tensor of its samples, of those that have something."""
        stated = {m: described.collate for m, described in self.modalities.items() if described.collate is not None}
        return {m: imported(values, trust=trust) for m, values in stated.items()}


def reader_of(values: Any, learnt: Mapping[str, Any], *, trust: bool) -> Reader:
    """A reader that knows what it learnt."""
    reader = made(values, Reader, trust=trust)
    reader.learn(learnt)
    return reader


def described(
    model: MultimodalModel,
    method: Method,
    loss: Loss,
    split: Split,
    *,
    batch_size: int,
    precision: str,
    monitor: str,
    metrics: Sequence[str],
    data: str = "",
) -> Description:
    """What a model is, trained by a method on a split like this one.

    Objects of other classes than ours are made a second time from what is written down, which shows whether that is
    all there is to them; so call it where random numbers do not matter.

    Args:
        model: any state of it.
        method: how it is trained, and predicts.
        loss: what is minimised.
        split: what it is trained on.
        batch_size: as for ``Trainer``.
        precision: as for ``Trainer``.
        monitor: as for ``Trainer``.
        metrics: as for ``Trainer``.
        data: name of the data set.
    """
    unknown: list[str] = []
    return Description(
        task=model.task.to_dict(),
        modalities={m: input_of(split, m, unknown) for m in model.modalities},
        encoders={
            m: _certain(encoder, f"encoders[{m!r}]", nn.Module, unknown) for m, encoder in model.encoders.items()
        },
        fusion=_certain(model.fusion, "fusion", Fusion, unknown),
        method=_certain(method, "method", Method, unknown),
        loss=_certain(loss, "loss", Loss, unknown),
        pool=model.pool is not None,
        batch_size=batch_size,
        precision=precision,
        monitor=monitor,
        metrics=list(metrics),
        data=data,
        labels=label_columns(split),
        versions={name: metadata.version(name) for name in ("torch", "counterpoise")},
        unknown=unknown,
    )


def label_columns(split: Split) -> list[str]:
    """Columns of the table that the labels of a split were read from."""
    while not isinstance(split, TableSplit) and isinstance(whole := getattr(split, "whole", None), Split):
        split = whole
    return list(split.table.label_columns) if isinstance(split, TableSplit) else ["label"]


def input_of(split: Split, modality: str, unknown: list[str]) -> Input:
    """How a modality of a split is read; what could not be written down is appended to ``unknown``."""
    if modality not in split.modalities:  # which the method does not read
        return Input(None, {}, None, "float32")
    reader = split.readers.get(modality)
    if reader is not None and reader.shape is not None:
        shape, dtype = reader.shape, reader.dtype
    else:
        example = split.example(modality)
        shape, dtype = (None, torch.float32) if example is None else (tuple(example.shape), example.dtype)
    values = None if reader is None else _certain(reader, f"readers[{modality!r}]", Reader, unknown)
    learnt = {} if reader is None else reader.learnt()
    together = split.collate.get(modality)
    plain_shape = None if shape is None or together is not None else list(shape)
    return Input(values, learnt, plain_shape, str(dtype).removeprefix("torch."), _importable(together))


def _importable(function: Any) -> Any:
    """A function by its import path; None where it has none."""
    try:
        values = None if function is None else written(function, "collate")
    except NotPortableError:
        return None
    return values if values is not None and "object" in values else None  # of an object nobody knows the arguments


def _certain(part: object, name: str, kind: type[object], unknown: list[str]) -> Any:
    """A part as plain data; None, with the reason in ``unknown``, where that is not sure to make it again."""
    try:
        values = written(part, name)
        if is_ours(values):
            return values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were said when it was made first
            again = made(values, kind, trust=True)
            if isinstance(part, Fusion) and isinstance(again, Fusion):
                again.predict(part.task)  # which the model tells it
    except NotPortableError as error:
        unknown.append(str(error))
        return None
    if reason := _doubt(part, again, values, name):
        unknown.append(f"{name} ({type(part).__name__}) does not keep its arguments under their own names: {reason}")
        return None
    return values


def _doubt(part: object, again: object, values: Any, name: str) -> str | None:
    """Why a part that was made again may be another one."""
    if isinstance(part, Method | Loss | Reader):  # which keep their arguments, and change otherwise in training
        return None if written(again, name) == values else f"made again they are {written(again, name)['init_args']}"
    return difference(part, again)
