"""Values in memory that are no numbers yet: how they are read, and what a reader makes of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import choice, settings

from .guessed_columns import LARGEST, picture_size
from .layout import Layout, layout_of_reader
from .progress import after_two_seconds
from .readers import READERS, Frames, Image, Reader, ReadError, guess
from .readers.base import all_finite
from .seeding import draw_of
from .split import placed


def is_absent(value: Any) -> bool:
    """Whether a value that a reader would take stands for nothing: None, a blank text, what pandas has for nothing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return not value.strip() if isinstance(value, str) else isinstance(value, float) and math.isnan(value)


def reader_of(modality: str, reader: Any) -> Reader:
    """A reader, or the one of that name; ValueError for anything else."""
    if isinstance(reader, str):
        reader = READERS[choice("reader", reader, READERS)]()
    if not isinstance(reader, Reader):
        given = f"the class {reader.__name__}" if isinstance(reader, type) else repr(reader)
        raise ValueError(f"readers[{modality!r}] must be a reader such as Image(), or its name; got {given}.")
    if reader.learns:
        raise ValueError(
            f"readers[{modality!r}]: {type(reader).__name__} learns from the training rows of a table. Put its columns "
            f"into a DataFrame: Table(df, {{{modality!r}: {type(reader).__name__}(...)}})."
        )
    return reader


def guessed(values: Sequence[Any]) -> Reader | None:
    """A reader for texts, names of files or pictures of PIL; None for what may be numbers.

    Raises:
        ValueError: texts that no reader fits; the message says what they do.
    """
    there = [value for value in values if not is_absent(value)]
    if there and all(isinstance(value, str) for value in there):
        reader = READERS[guess(there[:1000])]()
        if isinstance(reader, Image | Frames) and (size := picture_size(there)) is not None:
            return type(reader)(size=size)
        return reader
    if there and all(_is_picture(value) for value in there):
        grey = all(value.mode in ("1", "L") for value in there)
        return Image(size=picture_size(there) or LARGEST, channels=1 if grey else 3)
    return None


def _is_picture(value: Any) -> bool:
    from PIL import Image as Pillow

    return isinstance(value, Pillow.Image)


def changed(reader: Reader) -> dict[str, Any]:
    """The settings of a reader that differ from its defaults."""
    plain = settings(type(reader)())
    return {name: value for name, value in settings(reader).items() if value != plain[name]}


def spelt(reader: Reader) -> str:
    """A reader as one may write it, with what differs from its defaults."""
    return f"{type(reader).__name__}({', '.join(f'{name}={value!r}' for name, value in changed(reader).items())})"


def one_by_one(values: Any) -> list[Any] | None:
    """The values of a collection along one axis that are no numbers; None for anything that may be an array."""
    if isinstance(values, Tensor) or getattr(values, "ndim", 1) != 1 or not hasattr(values, "__len__"):
        return None
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUT":
        return None
    each = list(values)
    first = next((value for value in each if not is_absent(value)), None)
    kinds = str | bytes | Mapping
    return each if isinstance(first, kinds) or is_waveform(first) or _is_picture(first) else None


def is_waveform(value: Any) -> bool:
    """Whether a value is a waveform with its rate, as (array, 16000)."""
    pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Real)
    return pair and hasattr(value[0], "__len__") and not isinstance(value[0], str)


class Decoded:
    """One modality of samples in memory: what a reader decoded, once; augmentation is drawn for every batch.

    Args:
        modality: its name.
        reader: what decodes.
        values: one per sample.
        there: (n,) bool, which samples have one.

    Raises:
        ReadError: a value cannot be read; the message names the sample.
    """

    def __init__(self, modality: str, reader: Reader, values: Sequence[Any], there: Tensor):
        self.modality, self.reader, self.values = modality, reader, values
        rows = there.nonzero().flatten().tolist()
        if reader.shape is None and rows:
            reader.bind(values[rows[0]])
        self.samples: list[Tensor | None] = [None] * len(values)
        for row in after_two_seconds(rows, len(rows), f"reading {modality}"):
            try:
                self.samples[row] = reader.decode(values[row])
            except ReadError as error:
                raise ReadError(f"inputs[{modality!r}], sample {row}", error.reason) from error

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int], seed: int | None) -> Tensor:
        """(len(indices), ...) as ``Split.batch``."""
        rows = torch.as_tensor(indices, dtype=torch.int64).tolist()
        there = torch.tensor([self.samples[row] is not None for row in rows], dtype=torch.bool)
        read = [self._sample(row, seed) for row in rows if self.samples[row] is not None]
        if not read:
            example = self._sample(next(row for row, x in enumerate(self.samples) if x is not None), None)
            return example.new_zeros(len(rows), *example.shape)
        return placed(torch.stack(read), there.nonzero().flatten(), len(rows))

    def altered(self, row: int, alter: Callable[[Any], Any]) -> Tensor:
        """As ``Split.altered``."""
        return self.reader.altered(self.values[row], alter)

    def layout(self) -> Layout:
        """What a default encoder needs to know."""
        return layout_of_reader(self.modality, self.reader)

    def content(self) -> list[str | Tensor]:
        """All that is read and how, for a hash."""
        return [self.reader.fingerprint(), *("" if sample is None else sample for sample in self.samples)]

    def _sample(self, row: int, seed: int | None) -> Tensor:
        decoded = self.samples[row]
        assert decoded is not None
        x = self.reader.transform(decoded, draw_of(self.reader, self.modality, row, seed))
        if not all_finite(x):
            raise ReadError(f"inputs[{self.modality!r}], sample {row}", "holds NaN or infinity")
        return x


def as_numbers(modality: str, x: Tensor) -> tuple[Tensor, str]:
    """Numbers (n, ...) as an encoder needs them, and what to say of it; ValueError for uint8 of unknown meaning."""
    if x.dtype == torch.uint8:
        seen = _pictures(x)
        if seen is None:
            raise ValueError(
                f"{modality!r} holds uint8 of shape {tuple(x.shape)}, which may be numbers, tokens or pictures."
                " Pass x.astype('float32') for measurements, x.astype('int64') for token numbers; pictures are "
                "(n, H, W, C) or (n, C, H, W) of 1 or 3 colours (x[:, None] for grey ones)."
            )
        return seen, (
            f"uint8 pictures became floats in [0, 1] of shape {tuple(seen.shape)}; to resize or augment them pass "
            f"readers={{{modality!r}: Image(size=...)}}"
        )
    if x.is_floating_point() or x.dtype == torch.bool:
        return x.to(torch.float32), ""
    if x.numel() and int(x.min()) < 0:
        return x.to(torch.float32), "whole numbers below 0 are no token numbers, and became floats"
    return x if x.dtype == torch.int32 else x.to(torch.int64), ""


def _pictures(x: Tensor) -> Tensor | None:
    """Pictures (n, H, W, C) or (n, C, H, W), uint8 of 1 or 3 colours, as (n, C, H, W) in [0, 1]; None for others."""
    first, last = (x.ndim == 4 and x.shape[axis] in (1, 3) for axis in (1, -1))
    if x.dtype != torch.uint8 or first == last:
        return None
    return (x if first else x.movedim(-1, 1)).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
