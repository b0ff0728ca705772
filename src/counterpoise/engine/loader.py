"""Batches of a split: only the modalities asked for, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from counterpoise.data.split import Split
from counterpoise.types import Batch


class Request(NamedTuple):
    """What a worker is asked to read; it carries everything, so workers keep no state."""

    indices: list[int]
    modalities: tuple[str, ...]
    seed: int | None
    visible: dict[str, np.ndarray] | None


class _Reads(Dataset[Batch]):
    def __init__(self, split: Split):
        self.split = split

    def __getitem__(self, request: Request) -> Batch:
        split, rows = self.split, torch.as_tensor(request.indices, dtype=torch.int64)
        present = {} if split.present is None else {m: p[rows] for m, p in split.present.items()}
        for m, shown in (request.visible or {}).items():
            shown = torch.from_numpy(shown)
            present[m] = present[m] & shown if m in present else shown
        present = {m: p for m, p in present.items() if not bool(p.all())}
        inputs = {}
        for m in request.modalities:
            if m not in present:
                inputs[m] = split.batch(request.indices, m, request.seed)
                continue
            there = present[m].nonzero().flatten()
            if len(there) == 0:
                inputs[m] = torch.zeros(len(rows))  # nothing to read; the model runs no row of it
                continue
            read = split.batch(rows[there].tolist(), m, request.seed)
            inputs[m] = read.new_zeros(len(rows), *read.shape[1:]).index_copy(0, there, read)
        return Batch(inputs, split.target[rows], rows, present or None)


class _Plan(Sampler[Request]):
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


class Loader:
    """Reads one split; workers, when there are any, live as long as the loader.

    Args:
        split: what to read.
        batch_size: samples of the global batch.
        num_workers: processes that read ahead; 0 reads in this one.
        rank: number of this replica.
        world: number of replicas; each gets every ``world``-th sample of a global batch.
        pin_memory: for copies to a GPU that do not block.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
    ):
        self.split, self.batch_size, self.rank, self.world = split, batch_size, rank, world
        self._plan = _Plan()
        self._loader = DataLoader(
            _Reads(split),
            sampler=self._plan,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_one_thread if num_workers else None,
            generator=torch.Generator(),  # else every pass would draw from the global random numbers
        )

    def batches(
        self,
        modalities: Sequence[str],
        *,
        order_seed: int | None = None,
        augment_seed: int | None = None,
        drop_last: bool = False,
        skip: int = 0,
        rows: Tensor | None = None,
        visible: dict[str, Tensor] | None = None,
    ) -> Iterator[Batch]:
        """This replica's share of every global batch.

        Args:
            modalities: what to read.
            order_seed: shuffle by this seed; None keeps the order.
            augment_seed: training augmentation by this seed; None reads for evaluation.
            drop_last: leave an incomplete last batch out.
            skip: batches already done (a run interrupted inside an epoch).
            rows: positions in the split to use instead of 0..n-1, repetitions allowed.
            visible: modality -> (len(rows),) bool; False hides the modality of that row.
        """
        rows = torch.arange(len(self.split)) if rows is None else rows
        count = len(rows)
        order = torch.arange(count)
        if order_seed is not None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(order_seed))
        if drop_last:
            order = order[: count // self.batch_size * self.batch_size]
        hidden = {} if visible is None else {m: v.cpu().numpy() for m, v in visible.items()}
        requests = []
        for chunk in list(order.split(self.batch_size))[skip:]:
            share = chunk[self.rank :: self.world]
            if len(share):
                shown = {m: v[share.numpy()] for m, v in hidden.items()} or None
                requests.append(Request(rows[share].tolist(), tuple(modalities), augment_seed, shown))
        self._plan.requests = requests
        return iter(self._loader)
