"""Processes that average their gradients when told to, not inside ``backward``.

The DDP wrapper averages gradients while ``backward`` accumulates them. It never sees
``torch.autograd.grad``, a second ``backward`` over one forward pass, or a call of an inner module, all
of which training methods here do: replicas would then drift apart without a word.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from counterpoise._checks import choice, number

PRECISIONS = ("32-true", "bf16-mixed")


class ReplicaStrategy(DDPStrategy):
    """DDP's processes and collectives without DDP's wrapper."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        for tensor in [*module.parameters(), *module.buffers()]:
            torch.distributed.broadcast(tensor.data, src=0)
        return module


def make_fabric(
    *,
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "32-true",
    start_method: str = "popen",
) -> Fabric:
    """Devices, processes and precision.

    Args:
        accelerator: "auto", "cpu", "gpu" (or "cuda", "mps").
        devices: processes on this machine, one per device, at least 1.
        num_nodes: machines.
        precision: "32-true" or "bf16-mixed". "16-mixed" is refused: its loss scaler would stand between a
            method and its gradients.
        start_method: how more processes start: "popen" re-runs the command, "fork" and "spawn" run a function.

    Raises:
        ValueError: for an unknown precision or a count below 1.
    """
    choice("precision", precision, PRECISIONS)
    number("devices", devices, low=1)
    number("num_nodes", num_nodes, low=1)
    several = devices * num_nodes > 1
    strategy = ReplicaStrategy(start_method=start_method) if several else "auto"  # pyright: ignore[reportArgumentType]
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=precision,  # pyright: ignore[reportArgumentType]
        strategy=strategy,
    )
    if fabric.world_size == 1:
        fabric._launched = True  # nothing to launch: one process, this one
    return fabric


def average_(tensors: Iterable[Tensor], fabric: Fabric) -> None:
    """Replace each tensor by its mean over the replicas, in one collective."""
    tensors = list(tensors)
    if fabric.world_size == 1 or not tensors:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    torch.distributed.all_reduce(flat)
    flat /= fabric.world_size
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def average_gradients(parameters: Iterable[nn.Parameter], fabric: Fabric) -> None:
    """Average ``.grad`` over the replicas; a gradient that only some of them have counts as zero elsewhere."""
    if fabric.world_size == 1:
        return
    parameters = list(parameters)
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=fabric.device)
    torch.distributed.all_reduce(has, op=torch.distributed.ReduceOp.MAX)
    used = [p for p, flag in zip(parameters, has.tolist(), strict=True) if flag]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    average_([p.grad for p in used if p.grad is not None], fabric)


def gather_rows(rows: Tensor, fabric: Fabric) -> Tensor:
    """Concatenate (n_r, ...) tensors of different lengths over the replicas, in rank order."""
    if fabric.world_size == 1:
        return rows
    mine = rows.to(fabric.device)
    counts = [torch.zeros(1, dtype=torch.int64, device=fabric.device) for _ in range(fabric.world_size)]
    torch.distributed.all_gather(counts, torch.full_like(counts[0], len(rows)))
    lengths = [int(count) for count in counts]
    padded = mine.new_zeros(max(lengths), *mine.shape[1:])
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in lengths]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)]).to(rows.device)


def any_of(flag: bool, fabric: Fabric) -> bool:
    """Whether the flag is set on any replica."""
    if fabric.world_size == 1:
        return flag
    value = torch.tensor(int(flag), device=fabric.device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return bool(value)
