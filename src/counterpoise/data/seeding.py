"""Random numbers of one sample: by seed and position alone, wherever it is read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from .readers import Reader


def sample_seed(seed: int | None, row: int, stream: str) -> int:
    """A 63-bit seed that belongs to a seed, a position and a name.

    Args:
        seed: of the epoch; None where there is none, in evaluation.
        row: position of the sample in the whole data set.
        stream: what is drawn; equal names draw equal numbers.
    """
    key = hashlib.blake2b(f"{seed} {row} {stream}".encode(), digest_size=8)
    return int.from_bytes(key.digest(), "little") >> 1


def draw_of(reader: Reader, modality: str, row: int, seed: int | None) -> torch.Generator | None:
    """What a reader draws the augmentation of one sample from; None in evaluation, and where it draws nothing.

    Args:
        reader: of the modality.
        modality: its name.
        row: position of the sample in the whole data set.
        seed: of the epoch; None for evaluation.
    """
    if seed is None or reader.plain:
        return None
    return torch.Generator().manual_seed(sample_seed(seed, row, reader.stream or modality))


@contextmanager
def borrowed_generators() -> Iterator[Callable[[int], None]]:
    """A function that seeds the global generators of PyTorch (CPU), NumPy and Python; they are put back at the end."""
    torch_state, numpy_state, python_state = (
        torch.default_generator.get_state(),
        np.random.get_state(),
        random.getstate(),
    )
    try:
        yield _seed_all
    finally:
        torch.default_generator.set_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _seed_all(seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too, whose state is not put back
    np.random.seed(seed % 2**32)
    random.seed(seed)
