"""The samples of a map-style data set of PyTorch, one by one: named values, as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean, misnamed, per_modality

from .readers import Reader, ReadError
from .readers.base import all_finite
from .seeding import borrowed_generators, draw_of, sample_seed
from .tensors import tensor_of
from .values import as_numbers, guessed, is_absent, one_by_one, reader_of, spelt

Collate = Callable[[list[Tensor]], Tensor]


def pad(samples: Sequence[Tensor], value: float = 0) -> Tensor:
    """Sequences (T, ...) of different lengths as one tensor (n, longest, ...), filled up at their ends.

    Args:
        samples: at least one, equal in shape but for the first axis.
        value: what is filled in.
    """
    return torch.nn.utils.rnn.pad_sequence(list(samples), batch_first=True, padding_value=value)


class Example(NamedTuple):
    """What one sample looks like, that others are held against."""

    row: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Samples:
    """What a data set holds of each sample, by name.

    Args:
        dataset: ``dataset[i]`` gives a dict, a tuple, or a pair of a dict and a label.
        label: the name of the label.
        names: what the values of a tuple are, in order.
        modalities: which values are inputs; None takes all that the first sample has but the label.
        readers: modality -> what turns its values into tensors; the others are tensors, arrays or numbers already.
        collate: modality -> what makes one tensor of those of a batch, where they differ in shape.
        place: how messages name a sample.

    Attributes:
        modalities: names of the inputs, in order.
        examples: modality -> the first sample that was seen, in modalities that are neither read nor collated.

    Raises:
        ValueError: what the first sample is makes no sense; the message names the argument that would say more.
    """

    def __init__(
        self,
        dataset: Any,
        label: str,
        *,
        names: Sequence[str] | None = None,
        modalities: Sequence[str] | None = None,
        readers: Mapping[str, Reader | str] | None = None,
        collate: Mapping[str, Collate] | None = None,
        place: Callable[[int], str] = "sample {}".format,
    ):
        self.dataset, self.label, self.names, self.place = dataset, label, names, place
        self.readers = {m: reader_of(m, reader) for m, reader in (readers or {}).items()}
        self.collate = dict(collate or {})
        self.examples: dict[str, Example] = {}
        self._only = modalities is not None
        self.modalities: tuple[str, ...] = tuple(modalities or ())
        with borrowed_generators() as seeded:
            first = self._sample(0, None, seeded)
        if modalities is None:
            self.modalities = tuple(name for name in first if name != label)
        if not self.modalities:
            raise ValueError(f"{place(0)} has no modality: it holds {', '.join(map(repr, first)) or 'nothing'} only.")
        if wrong := next(filter(None, map(misnamed, self.modalities)), ""):
            raise ValueError(wrong)
        per_modality("readers", self.readers, self.modalities)
        per_modality("collate", self.collate, self.modalities)
        for m in self.modalities:
            self._recognise(m, first.get(m))

    def __len__(self) -> int:
        return len(self.dataset)

    def values(self, index: int, seed: int | None, seeded: Callable[[int], None]) -> dict[str, Any]:
        """Everything that a sample has, by name; what is None or missing is not there.

        Args:
            index: its position.
            seed: of the epoch; None for evaluation.
            seeded: seeds the global generators, for a data set that draws from them.
        """
        sample = self._sample(index, seed, seeded)
        if not self._only:
            for name in sample:
                if name not in self.modalities and name != self.label:
                    raise ValueError(
                        f"{self.place(index)} has {name!r}, which the first sample has not. "
                        f"{did_you_mean('modality', name, self.modalities)} Where samples lack modalities, name all "
                        f"that there are: modalities={[*self.modalities, name]!r}; other values are then ignored."
                    )
        return {
            name: value
            for name, value in sample.items()
            if value is not None and not (name in self.readers and is_absent(value))
        }

    def read(self, indices: Sequence[int], asked: Sequence[Sequence[str]], seed: int | None) -> list[dict[str, Tensor]]:
        """What some samples hold of the modalities that each is asked for; each is read once, or not at all."""
        tensors = []
        with borrowed_generators() as seeded:
            for index, modalities in zip(indices, asked, strict=True):
                values = self.values(index, seed, seeded) if modalities else {}
                tensors.append({m: self.tensor(m, values.get(m), index, seed) for m in modalities})
        return tensors

    def tensor(self, modality: str, value: Any, index: int, seed: int | None) -> Tensor:
        """A value as a tensor, of the shape that the others have.

        Raises:
            ReadError: it cannot be one, or is missing, which was to be said beforehand.
        """
        where = f"{self.place(index)}, {modality!r}"
        if value is None:
            raise ReadError(where, "is absent, and was not when the data set was made (present=)")
        try:
            x = self._read(modality, value, index, seed)
        except ReadError as error:
            raise ReadError(where, error.reason) from error
        except (TypeError, ValueError) as error:
            raise ReadError(where, str(error)) from error
        self._compare(modality, x, index)
        return x

    def finite(self, modality: str, x: Tensor, index: int) -> None:
        """ReadError when a sample holds NaN or infinity."""
        if not all_finite(x):
            where = f"{self.place(index)}, {modality!r}"
            raise ReadError(where, "holds NaN or infinity; a sample without this modality has None")

    def joined(self, modality: str, samples: list[Tensor], indices: Sequence[int]) -> Tensor:
        """The tensors of a batch as one, of finite numbers: (len(samples), ...)."""
        together = self.collate.get(modality, torch.stack)(samples)
        if not isinstance(together, Tensor) or len(together) != len(samples):
            given = tuple(together.shape) if isinstance(together, Tensor) else type(together).__name__
            raise ValueError(
                f"collate[{modality!r}] must make one tensor ({len(samples)}, ...) of {len(samples)}; got {given}."
            )
        if not all_finite(together):  # asked once for the batch, which is quicker
            for x, index in zip(samples, indices, strict=True):
                self.finite(modality, x, index)
        return together

    def _recognise(self, modality: str, value: Any) -> None:
        """Guess a reader from the first sample, and say so; or say what becomes of a picture without one."""
        if modality in self.readers:
            return
        how = ""
        if reader := guessed([value]):
            self.readers[modality] = reader
            how = f"is read by {spelt(reader)}; state it or another: readers="
        elif isinstance(value, Tensor | np.ndarray):
            with suppress(ValueError):  # said where it is read
                _, how = as_numbers(modality, tensor_of(value, modality)[None])
        if how:
            warnings.warn(f"{modality!r}: {how}.", stacklevel=6)

    def _sample(self, index: int, seed: int | None, seeded: Callable[[int], None]) -> dict[str, Any]:
        seeded(sample_seed(seed, index, ""))
        try:
            sample = self.dataset[index]
        except Exception as error:
            error.add_note(f"while reading {self.place(index)} of {type(self.dataset).__name__}")
            raise
        return self._named(sample, index)

    def _named(self, sample: Any, index: int) -> dict[str, Any]:
        if isinstance(sample, Mapping) and self.names is None:
            return dict(sample)
        if isinstance(sample, Sequence) and not isinstance(sample, str | bytes):
            named = self.names if self.names is not None else getattr(sample, "_fields", None)  # of a named tuple
            if named is not None and len(named) == len(sample):
                return dict(zip(named, sample, strict=True))
            if self.names is None and len(sample) == 2 and isinstance(sample[0], Mapping):
                return {**sample[0], self.label: sample[1]}
            rule = "a name for each" if self.names is None else f"{len(self.names)} of them"
            example = ", ".join([*(repr(f"input{i}") for i in range(1, len(sample))), repr(self.label)])
            raise ValueError(
                f"{self.place(index)} is a {type(sample).__name__} of {len(sample)} values, and names must say what "
                f"they are, {rule}, as names=({example})."
            )
        wanted = "a dict of named values, or a tuple with names=" if self.names is None else "a tuple, as names= says"
        raise ValueError(f"{self.place(index)} must be {wanted}; got {type(sample).__name__}.")

    def _read(self, modality: str, value: Any, index: int, seed: int | None) -> Tensor:
        reader = self.readers.get(modality)
        if reader is None:
            if np.ma.is_masked(value):
                raise ValueError("has masked values; fill them, or give None where the sample lacks this modality")
            if not isinstance(value, Tensor | np.ndarray) and one_by_one([value]) is not None:
                raise ValueError(f"is a {type(value).__name__}; say how it is read: readers={{{modality!r}: ...}}")
            x = tensor_of(value, "the value")
            if x.ndim == 0:  # a lone number is a measurement, no token
                return x.to(torch.float32)[None]
            x, _ = as_numbers(modality, x[None])
            return x[0]
        return reader.read(value, draw_of(reader, modality, index, seed))

    def _compare(self, modality: str, x: Tensor, index: int) -> None:
        """ReadError for another shape or type than that of the first sample that was seen."""
        if modality in self.readers:  # which know their shape, and say what is wrong
            return
        example = self.examples.setdefault(modality, Example(index, tuple(x.shape), x.dtype))
        if x.dtype != example.dtype:
            raise ReadError(
                f"{self.place(index)}, {modality!r}",
                f"holds {x.dtype}, and {self.place(example.row)} {example.dtype}; give all samples one type",
            )
        if modality not in self.collate and tuple(x.shape) != example.shape:
            raise ReadError(
                f"{self.place(index)}, {modality!r}",
                f"has shape {tuple(x.shape)}, and {self.place(example.row)} {example.shape}. Pass "
                f"collate={{{modality!r}: counterpoise.data.pad}} to fill each batch up with zeros, or make all "
                "samples one shape in the data set",
            )
