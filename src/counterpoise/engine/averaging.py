"""Sums and means over the replicas in buckets: while one is on its way, the next is made.

A bucket is packed, sent and unpacked as one tensor. All replicas must send the same buckets in the same
order, or they wait for each other for ever; here the order is that of the parameters, from the last, and
a bucket that is complete early waits for those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoise.engine.replicas import Fabric, any_of_each

T = TypeVar("T", bound=Tensor)
BUCKET = 25 * 2**20  # bytes; less sends often, more sends late


class _Sent(NamedTuple):
    flat: Tensor
    sizes: list[int]
    work: dist.Work

    def sums(self) -> Sequence[Tensor]:
        self.work.wait()
        return self.flat.split(self.sizes)


def _send(tensors: Sequence[Tensor]) -> _Sent:
    flat = torch.cat([t.flatten() for t in tensors])
    work = dist.all_reduce(flat, async_op=True)
    assert work is not None
    return _Sent(flat, [t.numel() for t in tensors], work)


def _buckets(tensors: Iterable[T]) -> list[list[T]]:
    """In order, each of one dtype and, unless it is a single tensor, of at most ``BUCKET`` bytes."""
    made: list[list[T]] = []
    room = 0
    for t in tensors:
        size = t.numel() * t.element_size()
        if not made or t.dtype != made[-1][0].dtype or size > room:
            made.append([])
            room = BUCKET
        made[-1].append(t)
        room -= size
    return made


def average_(tensors: Iterable[Tensor], fabric: Fabric) -> None:
    """Replace each tensor by its mean over the replicas."""
    if fabric.world_size == 1:
        return
    before: tuple[list[Tensor], _Sent] | None = None
    for bucket in [*_buckets(tensors), None]:
        now = None if bucket is None else (bucket, _send(bucket))
        if before is not None:  # two buckets are in memory, never all
            for tensor, total in zip(before[0], before[1].sums(), strict=True):
                torch.div(total.view_as(tensor), fabric.world_size, out=tensor)
        before = now


class SummedBackward:
    """While active, one backward pass of ``loss``; afterwards each ``.grad`` is its sum over the replicas.

    For the mean go back from ``loss / world_size``, which costs nothing, where dividing gradients reads and writes all.

    A gradient that only some replicas have counts as zero on the others; one that nobody has stays None.

    Args:
        loss: what ``backward`` will be called on.
        parameters: whose gradients count, the same on every replica; none of them may have a ``.grad`` yet.
        fabric: the replicas.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[nn.Parameter], fabric: Fabric):
        self._parameters = parameters
        reached = _reached(loss)
        used = any_of_each([id(p) in reached for p in parameters], fabric)
        self._used = [p for p, flag in zip(parameters, used, strict=True) if flag]
        # the layers that are nearest to the loss come last, and their gradients first
        self._buckets = _buckets(reversed(self._used))
        self._waiting = [sum(id(p) in reached for p in bucket) for bucket in self._buckets]
        self._bucket_of = {id(p): i for i, bucket in enumerate(self._buckets) for p in bucket}
        self._sent: list[_Sent] = []

    def __enter__(self) -> None:
        self._handles = [p.register_post_accumulate_grad_hook(self._ready) for p in self._used]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        if kind is None:
            self._finish()

    def _ready(self, parameter: Tensor) -> None:
        self._waiting[self._bucket_of[id(parameter)]] -= 1
        while len(self._sent) < len(self._buckets) and self._waiting[len(self._sent)] == 0:
            self._send_next()

    def _send_next(self) -> None:
        bucket = self._buckets[len(self._sent)]
        grads = [_in_storage_order(torch.zeros_like(p) if p.grad is None else p.grad, p) for p in bucket]
        has = grads[0].new_tensor([p.grad is not None for p in bucket])
        self._sent.append(_send([*grads, has]))

    def _finish(self) -> None:
        hidden = [p for p in self._parameters if p.grad is not None and id(p) not in self._bucket_of]
        if hidden or min(self._waiting, default=0) < 0:
            raise RuntimeError(
                "A parameter got a gradient twice, or one that the graph of the loss does not show, so replicas would "
                "drift apart. Reentrant checkpointing does that; use torch.utils.checkpoint(..., use_reentrant=False)."
            )
        while len(self._sent) < len(self._buckets):  # what this replica does not use, or got no gradient for
            self._send_next()
        for bucket, sent in zip(self._buckets, self._sent, strict=True):
            *totals, has = sent.sums()
            for i, (p, total) in enumerate(zip(bucket, totals, strict=True)):
                if p.grad is not None or has[i]:
                    p.grad = _laid_out(total, p)


def _axes(p: Tensor) -> list[int]:
    return sorted(range(p.dim()), key=lambda axis: -p.stride(axis))


def _in_storage_order(gradient: Tensor, p: Tensor) -> Tensor:
    """(n,) numbers in the order in which ``p`` has them in memory, so that nothing is copied, channels-last or not."""
    return gradient.permute(_axes(p)).flatten()


def _laid_out(numbers: Tensor, p: Tensor) -> Tensor:
    """Counterpart of `_in_storage_order`: a view of the shape and layout of ``p``."""
    axes = _axes(p)
    return numbers.view([p.shape[axis] for axis in axes]).permute([axes.index(axis) for axis in range(p.dim())])


def _reached(loss: Tensor) -> set[int]:
    """Ids of the tensors that ``backward`` would give a gradient."""
    todo, seen, leaves = [loss.grad_fn], set(), set[int]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            leaves.add(id(leaf))
        todo += [following for following, _ in node.next_functions]
    return leaves
