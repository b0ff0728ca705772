"""Arrays stored by NumPy."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterpoise._checks import whole
from counterpoise.data.readers.base import Reader, ReadError, read_bytes
from counterpoise.data.readers.stored import array_of, arrays_of, names_of

if TYPE_CHECKING:
    import numpy as np

RAGGED = re.compile(r"has shape \((\d+),.* gives \((\d+),.*; length=N ")
"""What `Array` says of a sequence whose length alone is not that of the first."""


class Array(Reader):
    """Features in a ``.npy`` file, or under a key of an ``.npz``, as float32.

    Every file must have the shape of the first one (`bind`), for sequences apart from the number of
    steps. NaN and infinity are errors, and nothing is ever unpickled.

    Args:
        key: name of the array in an ``.npz``; not needed when it holds only one.
        length: steps of a sequence (T, ...): longer ones are cut at the end, shorter ones get zeros
            there. None keeps the shape as it is.
    """

    takes = "numbers, or the name or the bytes of a file"
    extensions = (".npy", ".npz")
    decoded_by = ("key",)

    def __init__(self, key: str | None = None, length: int | None = None):
        if key is not None and not isinstance(key, str):
            raise ValueError(f"key must be the name of an array in an .npz; got {key!r}.")
        self.key = key
        self.length = None if length is None else whole("length", length, low=1)
        self.kind = "array" if length is None else "sequence"
        self._bound: tuple[int, ...] | None = None
        self._example = ""

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self._bound

    def bind(self, cell: Any) -> None:
        self._bound, self._example = None, cell if isinstance(cell, str) else "the first"
        self.learn({"shape": self.transform(self.decode(cell), None).shape})

    def learnt(self) -> dict[str, Any]:
        return {} if self._bound is None else {"shape": list(self._bound)}

    def learn(self, learnt: Mapping[str, Any]) -> None:
        self._bound = tuple(learnt["shape"]) if learnt else None
        self.kind = "sequence" if self.length is not None or len(self._bound or ()) == 2 else "array"

    def load(self, cell: str) -> Tensor:

        content = read_bytes(cell)
        if content.startswith(b"\x93NUMPY"):
            array = array_of(content, cell)
        elif content.startswith(b"PK"):
            file = io.BytesIO(content)
            ((_, array),) = arrays_of(file, cell, only=self._name(cell, names_of(file)))
        else:
            raise ReadError(cell, "is no NumPy file" + self._hint(cell))
        return self._numbers(array, cell)

    def load_value(self, value: Any) -> Tensor:
        import numpy as np

        if not isinstance(value, Tensor | np.ndarray | list | tuple):
            return super().load_value(value)
        return self._numbers(np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value), "array").clone()

    def _numbers(self, array: np.ndarray, cell: str) -> Tensor:
        """As float32, finite and of the shape that was bound."""
        import numpy as np

        if array.dtype.kind not in "fiub":
            raise ReadError(cell, f"holds {array.dtype}, not real numbers")
        if array.ndim == 0 or array.size == 0:
            raise ReadError(cell, f"is empty or a single number: its shape is {array.shape}")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(array).all():
            first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ReadError(cell, f"holds NaN or infinity, first at {list(first)}")
        self._match(tuple(array.shape), cell)
        return torch.from_numpy(array)

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        self._match(tuple(decoded.shape), "array")  # a cached array has not met this table's shape
        if self.length is None:
            return decoded.clone()
        sample = decoded.new_zeros(self.length, *decoded.shape[1:])
        sample[: len(decoded)] = decoded[: self.length]
        return sample

    def _match(self, shape: tuple[int, ...], cell: str) -> None:
        if self._bound is None:
            return
        alike = shape[1:] == self._bound[1:] and len(shape) == len(self._bound)
        if not alike or (self.length is None and shape != self._bound):
            advice = "; length=N brings sequences to N steps" if alike else ""
            raise ReadError(cell, f"has shape {shape}, {self._example} gives {self._bound}{advice}")

    def _name(self, cell: str, names: list[str]) -> str:
        if self.key is None and len(names) == 1:
            return names[0]
        if self.key in names:
            return str(self.key)
        wanted = "key must name one of them" if self.key is None else f"not key={self.key!r}"
        raise ReadError(cell, f"holds the arrays {', '.join(names) or 'none'}; {wanted}")
