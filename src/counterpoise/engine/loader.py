"""Batches of a split: only the modalities asked for, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from counterpoise.data.split import Parts, Split, placed
from counterpoise.engine.replicas import Fabric
from counterpoise.engine.slabs import AHEAD, Ring, Sent, Slabs
from counterpoise.types import Batch, Present, who_has


class Request(NamedTuple):
    """What a worker is asked to read; it carries everything, so workers keep no state."""

    indices: list[int]
    modalities: tuple[str, ...]
    seed: int | None
    present: dict[str, np.ndarray]


class Read(NamedTuple):
    """A batch as it was read.

    Attributes:
        batch: of modalities in ``drawn``, its inputs are parts of the samples that have the modality.
        drawn: modality -> (n, k) what ``Reader.transform_batch`` takes beside these parts.
    """

    batch: Batch
    drawn: dict[str, Tensor]

    def moved(self, move: Callable[[Any], Any]) -> Read:
        """With ``move`` of every tensor."""
        return Read(self.batch.moved(move), {m: move(numbers) for m, numbers in self.drawn.items()})


class _Reads(Dataset[Sent | Exception]):
    """What workers do.

    Args:
        split: what is read.
        apart: leave to the device what it can do for a whole batch.
    """

    def __init__(self, split: Split, *, apart: bool):
        self.split, self.apart = split, apart
        self.slabs = Slabs()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "slabs": self.slabs.number}

    @cached_property
    def _ring(self) -> Ring:
        return Ring(self.slabs if isinstance(self.slabs, int) else self.slabs.number)

    def __getitem__(self, request: Request) -> Sent | Exception:
        self._ring.turn()
        try:
            read = self.read(request, self._ring.empty)
        except Exception as error:  # raised by whoever asked: PyTorch would make its message a traceback
            return _portable(error)
        tensors: list[Tensor] = []
        read.moved(tensors.append)
        places = iter(self._ring.put(tensors))
        return self._ring.sent(read.moved(lambda _: next(places)))

    def read(self, request: Request, empty: Callable[..., Tensor] = torch.empty) -> Read:
        """What was asked for."""
        split, rows = self.split, torch.as_tensor(request.indices, dtype=torch.int64)
        present = {m: torch.from_numpy(mask) for m, mask in request.present.items()}
        parts = self._parts(request, present, empty) if self.apart else {}
        others = [m for m in request.modalities if m not in parts]
        inputs = split.read_together(request.indices, others, request.seed, present)
        inputs = {m: parts[m].values if m in parts else inputs[m] for m in request.modalities}
        weight = None if split.weight is None else split.weight[rows]
        batch = Batch(inputs, split.target[rows], rows, present or None, weight)
        return Read(batch, {m: part.drawn for m, part in parts.items() if part.drawn is not None})

    def _parts(self, request: Request, present: Present, empty: Callable[..., Tensor]) -> dict[str, Parts]:
        """Of the modalities for whose samples something is left to do together."""
        parts = {}
        for m in request.modalities:
            there = who_has(m, present, len(request.indices)).nonzero().flatten()
            part = self.split.parts([request.indices[i] for i in there.tolist()], m, request.seed, empty)
            if part is not None:
                finished = part.drawn is None
                parts[m] = Parts(placed(part.values, there, len(request.indices))) if finished else part
        return parts


def _portable(error: Exception) -> Exception:
    """An error that survives the way to another process, with where it happened as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error of somebody's own does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Plan(Sampler[Request]):
    """The requests of one pass, each made when it is asked for: a million rows are one tensor."""

    def __init__(self) -> None:
        self.starts: Sequence[int] = ()
        self.request: Callable[[int], Request]

    def __iter__(self) -> Iterator[Request]:
        return map(self.request, self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C in a terminal reaches workers too, and they must live until the current batch is done
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Loader:
    """Reads one split.

    Args:
        split: what to read.
        batch_size: samples of the global batch.
        num_workers: processes that read ahead; 0 reads in this one.
        persistent: workers live as long as the loader, not for one pass.
        rank: number of this replica.
        world: number of replicas; each gets every ``world``-th sample of a global batch.
        pin_memory: for copies to a GPU that do not block.
        device: where to do what can be done to whole batches of samples (``Reader.transform_batch``), whose inputs are
            then there; None does it to each sample where it is read.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        num_workers: int = 0,
        persistent: bool = False,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
        device: torch.device | None = None,
    ):
        self.split, self.batch_size, self.rank, self.world = split, batch_size, rank, world
        self.num_workers, self.pin_memory, self.device = num_workers, pin_memory, device
        self._plan = _Plan()
        self._kept = self._reader(self._plan, persistent=True) if persistent and num_workers else None
        self._busy = False

    def _reader(self, plan: _Plan, *, persistent: bool) -> DataLoader[Sent | Exception]:
        return DataLoader(
            _Reads(self.split, apart=self.device is not None),
            sampler=plan,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=persistent,
            prefetch_factor=AHEAD,
            pin_memory=self.pin_memory,
            worker_init_fn=_start_worker if self.num_workers else None,
            generator=torch.Generator(),  # else every pass would draw from the global random numbers
        )

    def _read(self, starts: Sequence[int], request: Callable[[int], Request]) -> Iterator[Batch]:
        if not self.num_workers:
            yield from self._read_here(map(request, starts))
            return
        ours = self._kept is None or self._busy  # persistent workers serve one pass at a time
        plan = _Plan() if ours else self._plan
        plan.starts, plan.request = starts, request
        if self._kept is None or ours:
            yield from map(self._arrived, self._reader(plan, persistent=False))
            return
        self._busy = True
        try:
            yield from map(self._arrived, self._kept)
        finally:
            self._busy = False

    def _arrived(self, read: Any) -> Batch:
        """The batch of a worker, in memory of its own."""
        if isinstance(read, Exception):
            raise read
        batch = self._finished(read)
        if self.pin_memory:  # which has copied it
            return batch
        shared = {x.untyped_storage().data_ptr() for x in read.batch.inputs.values()}
        return batch.moved(lambda x: x.clone() if x.untyped_storage().data_ptr() in shared else x)

    def _read_here(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """In this process, as a DataLoader without workers would, whose machinery costs more than small batches."""
        reads = _Reads(self.split, apart=self.device is not None)
        empty = partial(torch.empty, pin_memory=True) if self.pin_memory else torch.empty
        for request in requests:
            read = reads.read(request, empty)
            yield self._finished(read.moved(Tensor.pin_memory) if self.pin_memory else read)

    def _finished(self, read: Read) -> Batch:
        """With the rest of what readers do, on the device."""
        batch, device = read.batch, self.device
        if device is None or not read.drawn:
            return batch
        inputs = dict(batch.inputs)
        for m, drawn in read.drawn.items():
            free = device.type == "cuda"  # copies that do not block give wrong numbers on Apple's GPUs
            done = self.split.readers[m].transform_batch(inputs[m].to(device, non_blocking=free), drawn)
            there = who_has(m, batch.present, len(batch.target)).nonzero().flatten()
            inputs[m] = placed(done, there.to(device, non_blocking=free), len(batch.target))
        return batch._replace(inputs=inputs)

    def batches(
        self,
        modalities: Sequence[str],
        *,
        order_seed: int | None = None,
        augment_seed: int | None = None,
        drop_last: bool = False,
        skip: int = 0,
        rows: Tensor | None = None,
        visible: Present = None,
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
        count = len(self.split) if rows is None else len(rows)
        if order_seed is None:
            order = torch.arange(count)
        else:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(order_seed))
        present = dict(self.split.present or {})
        if rows is not None:
            present = {m: p[rows] for m, p in present.items()}
        for m, shown in (visible or {}).items():
            present[m] = present[m] & shown.cpu() if m in present else shown.cpu()
        rank, world, size = self.rank, self.world, self.batch_size

        def request(start: int) -> Request:  # without self, so that nothing keeps a loader's workers alive
            chunk = order[start : start + size]
            share = chunk[rank::world]
            # a mask is there on every replica when anyone in the global batch lacks the modality: methods call
            # collectives only where there is one
            masks = {m: p[share].numpy() for m, p in present.items() if not bool(p[chunk].all())}
            read = share if rows is None else rows[share]
            return Request(read.tolist(), tuple(modalities), augment_seed, masks)

        # an incomplete last batch may leave too few samples for this replica
        end = count // size * size if drop_last else count - rank
        return self._read(range(skip * size, end, size), request)


def transforms_there(device: torch.device) -> bool:
    """Whether whole batches are transformed on it: a CPU is quicker with one sample after another, in its caches."""
    return device.type != "cpu"


class Loaders:
    """The loaders of a run: those that are used every epoch are kept while it trains, others serve one pass.

    Args:
        batch_size: samples of the global batch.
        num_workers: processes per loader that read ahead.
        fabric: which replica this is, and on what device.
    """

    def __init__(self, batch_size: int, num_workers: int, fabric: Fabric):
        self.batch_size, self._num_workers, self._fabric = batch_size, num_workers, fabric
        self._kept: dict[tuple[int, bool], Loader] = {}  # a loader holds its split, so no id is used twice

    def keep(self, *splits: Split) -> None:
        """Keep the loaders of these splits, and with them their workers, until ``close``."""
        self._kept = {(id(s), whole): self._make(s, whole, True) for s in splits for whole in (False, True)}

    def close(self) -> None:
        """Let the workers go."""
        self._kept = {}

    def get(self, split: Split, *, everything: bool = False) -> Loader:
        """The loader of a split; ``everything`` gives each replica every sample."""
        everything = everything and self._fabric.world_size > 1  # one replica's share is everything
        return self._kept.get((id(split), everything)) or self._make(split, everything, False)

    def _make(self, split: Split, everything: bool, persistent: bool) -> Loader:
        device = self._fabric.device
        return Loader(
            split,
            self.batch_size,
            num_workers=self._num_workers,
            persistent=persistent,
            rank=0 if everything else self._fabric.global_rank,
            world=1 if everything else self._fabric.world_size,
            pin_memory=self._fabric.device.type == "cuda",
            device=device if transforms_there(device) else None,
        )
