"""Batches on their way from workers: the same tensors, in memory that is used again."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor

from counterpoise.engine.loader import Read
from counterpoise.engine.slabs import AHEAD, Ring, Slabs
from counterpoise.types import Batch


def read(size: int, **inputs: Tensor) -> Read:
    rows = torch.arange(size)
    return Read(Batch(inputs, rows % 2, rows, {"a": rows > 0}), {"a": torch.zeros(size, 0, dtype=torch.float64)})


def sent(ring: Ring, content: Read) -> bytes:
    tensors: list[Tensor] = []
    content.moved(tensors.append)
    places = iter(ring.put(tensors))
    return bytes(ForkingPickler.dumps(ring.sent(content.moved(lambda _: next(places)))))


def assert_equal(one: Read, other: Read) -> None:
    both: list[list[Tensor]] = [[], []]
    for content, tensors in zip((one, other), both, strict=True):
        content.moved(tensors.append)
    for a, b in zip(*both, strict=True):
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


def test_tensors_arrive_as_they_were_sent():
    slabs = Slabs()
    ring = Ring(slabs.number)
    for size in (3, 2, 50, 4, 51, 3):  # larger ones than before among them
        ring.turn()
        inside = ring.empty((size, 5), torch.float32).normal_()
        last = ring.empty((size, 4, 6, 3), torch.uint8).random_().movedim(-1, 1)
        outside = torch.randn(size, 7, requires_grad=True)
        content = read(size, a=inside, b=last, c=outside.detach(), d=torch.ones(1, 2).expand(size, 2).contiguous())
        assert_equal(pickle.loads(sent(ring, content)), content)
    assert len(slabs.sent) == AHEAD + 1


def test_a_batch_stays_until_two_more_have_been_read():
    slabs, arrived = Slabs(), []
    ring = Ring(slabs.number)
    for value in range(AHEAD + 2):
        ring.turn()
        arrived.append(pickle.loads(sent(ring, read(4, a=torch.full((4, 3), float(value))))))
        for back, before in enumerate(reversed(arrived[-AHEAD - 1 :])):
            assert (before.batch.inputs["a"] == value - back).all()
    assert (arrived[0].batch.inputs["a"] == AHEAD + 1).all()  # its memory is that of the last one
    data: Any = [x.batch.inputs["a"].data_ptr() for x in arrived]
    assert data[0] == data[-1]
    assert len(set(data)) == AHEAD + 1


def test_what_arrives_for_a_loader_that_has_gone_is_nothing():
    ring = Ring(Slabs().number)
    ring.turn()
    assert pickle.loads(sent(ring, read(2, a=torch.ones(2, 2)))) is None
