"""What a default encoder needs to know of a modality."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from counterpoise.data.readers import Reader, Tabular, Text

OF_AXES = {1: "array", 2: "sequence", 3: "image"}
"""The kind of numbers by the axes of a sample, where nothing else says it."""


class Layout(NamedTuple):
    """What a modality looks like: its kind, as of readers; the shape of a sample; more options of its encoder."""

    kind: str
    shape: tuple[int, ...]
    options: dict[str, Any]


def layout_of_reader(modality: str, reader: Reader) -> Layout:
    """What a reader makes of the cells of a modality; ValueError while it does not know the shape."""
    if reader.shape is None:
        raise ValueError(f"modality {modality!r}: no sample could be read to find its shape; run `data check`.")
    if isinstance(reader, Tabular):
        return Layout(reader.kind, reader.shape, {"numbers": reader.plain_width, "levels": reader.levels})
    if not isinstance(reader, Text):
        return Layout(reader.kind, reader.shape, {})
    padding = {"padding": reader.padding} if reader.padding else {}
    return Layout(reader.kind, reader.shape, {"vocab_size": reader.vocab_size, **padding})


def layout_of_sample(modality: str, sample: Tensor) -> Layout:
    """What the numbers of one sample look like.

    Raises:
        ValueError: whole numbers, which may be tokens of a vocabulary of unknown size; other axes than 1 to 3.
    """
    kind = OF_AXES.get(sample.ndim) if sample.is_floating_point() else None
    if kind is None:
        raise ValueError(
            f"modality {modality!r}: no default encoder is known for samples of {sample.dtype} and shape "
            f"{tuple(sample.shape)}; floats of 1, 2 or 3 axes have one. Pass an encoder for it."
        )
    return Layout(kind, tuple(sample.shape), {})
