"""Memory that workers read batches into, shared with the process that trains, and used again and again.

A tensor that a worker sends the usual way is copied into shared memory that is made for it: the system clears and maps
new pages, at ten times the cost of the copy, and a descriptor travels for each tensor. Here each worker has a few
slabs, and sends where in them its tensors lie.
"""

from __future__ import annotations

import itertools
import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

AHEAD = 2
"""Batches that each worker is asked for before they are needed."""

_SLABS = AHEAD + 1  # one is in the hands of who asked for it while the others are read
_ALIGNED = 64  # bytes: a multiple of every type's size


class Slabs:
    """The slabs of one loader's workers, as far as they have been sent here."""

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self.sent: dict[tuple[int, int], Tensor] = {}  # (worker, which) -> (bytes,) uint8
        _KNOWN[self.number] = self


_NUMBERS = itertools.count()
_KNOWN: WeakValueDictionary[int, Slabs] = WeakValueDictionary()


class Place(NamedTuple):
    """Where a tensor lies in a slab, in bytes."""

    start: int
    size: int
    shape: Sequence[int]
    stride: Sequence[int]
    dtype: torch.dtype

    def of(self, slab: Tensor) -> Tensor:
        """The tensor there."""
        return slab[self.start : self.start + self.size].view(self.dtype).as_strided(self.shape, self.stride)


class Ring:
    """The slabs of one worker, in turn.

    Args:
        number: of the ``Slabs`` in the other process.
    """

    def __init__(self, number: int):
        worker = get_worker_info()
        self._number, self._worker = number, 0 if worker is None else worker.id
        self._slabs = [torch.empty(0, dtype=torch.uint8)] * _SLABS
        self._files: list[Any] = [None] * _SLABS  # of slabs that have not been sent
        self._turn, self._used = 0, 0

    def turn(self) -> None:
        """Begin a batch, in the slab that was sent longest ago."""
        self._turn, self._used = (self._turn + 1) % _SLABS, 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Contiguous memory in the slab of this batch; memory of its own where there is no room in it."""
        plain = torch.empty(*shape, dtype=dtype)  # until it is written to, it takes no memory
        return self._place(plain).of(self._slab) if self._fits([plain]) else plain

    def put(self, tensors: Sequence[Tensor]) -> list[Place]:
        """Where these lie in the slab of this batch, after a copy of those that lie elsewhere."""
        if not self._fits([x for x in tensors if self._at(x) is None]):
            room = sum(map(_room, tensors))
            file = _file(room + room // 8)
            self._slabs[self._turn], self._files[self._turn] = _mapped(file), DupFd(file)
            os.close(file)
            self._used = 0
        places = []
        for x in tensors:
            start = self._at(x)
            if start is None:
                places.append(self._place(x))
                places[-1].of(self._slab).copy_(x.detach())
            else:
                places.append(Place(start, x.nbytes, x.shape, x.stride(), x.dtype))
        return places

    def sent(self, content: Any) -> Sent:
        """What is sent of the slab of this batch; the slab itself only once."""
        file, self._files[self._turn] = self._files[self._turn], None
        return Sent(self._number, (self._worker, self._turn), file, content)

    @property
    def _slab(self) -> Tensor:
        return self._slabs[self._turn]

    def _fits(self, tensors: Sequence[Tensor]) -> bool:
        return self._used + sum(map(_room, tensors)) <= len(self._slab)

    def _at(self, x: Tensor) -> int | None:
        """Where a tensor lies in the slab of this batch, if it does."""
        start = x.data_ptr() - self._slab.data_ptr()
        return start if start >= 0 and start + x.nbytes <= len(self._slab) else None

    def _place(self, x: Tensor) -> Place:
        """Room for a tensor like this one; as dense, its axes in the same order in memory."""
        strides = torch.empty_like(x, device="meta").stride()
        place = Place(self._used, x.nbytes, x.shape, strides, x.dtype)
        self._used += _room(x)
        return place


class Sent:
    """A batch on its way: it arrives with its tensors in place of their places."""

    def __init__(self, number: int, key: tuple[int, int], file: Any, content: Any):
        self._parts = number, key, file, content

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, self._parts


def _arrived(number: int, key: tuple[int, int], file: Any, content: Any) -> Any:
    """In the other process, also for batches that nobody takes any more: a slab is sent once."""
    slabs = _KNOWN.get(number)
    if slabs is None:  # the loader has gone
        return None
    if file is not None:
        descriptor = file.detach()
        slabs.sent[key] = _mapped(descriptor)
        os.close(descriptor)
    return content.moved(lambda place: place.of(slabs.sent[key]))


def _file(size: int) -> int:
    """The descriptor of a file in memory without a name: other than /dev/shm, it is as large as memory allows."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def _mapped(file: int) -> Tensor:
    """(bytes,) uint8 in a file, shared with all who map it."""
    return torch.frombuffer(mmap.mmap(file, 0), dtype=torch.uint8)


def _room(x: Tensor) -> int:
    """Bytes that a tensor takes up, rounded up."""
    return -(-x.nbytes // _ALIGNED) * _ALIGNED
