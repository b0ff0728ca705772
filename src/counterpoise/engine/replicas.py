"""The processes of a run: how they start, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, whole
from counterpoise.functional import precision
from counterpoise.types import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric
else:
    Fabric = object  # it takes seconds to import, with all that it imports; only ``make_fabric`` needs it

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Where torchrun, Fabric and srun tell a process which one it is."""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


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
        num_nodes: machines, at least 1. Where ``torchrun`` or ``srun`` started the processes, leave both at 1
            (what they started counts) or say the same.
        precision: "32-true", "bf16-mixed", or on GPUs of Nvidia "16-mixed".
        start_method: how more processes start: "popen" re-runs the command, "fork" and "spawn" run a function.

    Raises:
        ValueError: for an unknown precision or accelerator, no GPU where one is asked for, a count below 1, or another
            number of processes than were started.
    """
    choice("precision", precision, PRECISIONS)
    choice("accelerator", accelerator, ACCELERATORS)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not {**there, "gpu": any(there.values())}.get(accelerator, True):
        raise ValueError(
            f"accelerator={accelerator!r} asks for a GPU, and PyTorch finds none here. Pass accelerator='cpu', or "
            "'auto' to use one where there is one."
        )
    if precision == "16-mixed" and (accelerator in ("cpu", "mps") or not there["cuda"]):
        raise ValueError(
            "precision='16-mixed' needs a GPU of Nvidia. Pass 'bf16-mixed', which CPUs have, or '32-true'."
        )
    whole("devices", devices, low=1)
    whole("num_nodes", num_nodes, low=1)
    if (started := started_by()) is not None:
        by, *counts = started
        if (devices, num_nodes) not in ((1, 1), tuple(counts)):
            raise ValueError(
                f"{by} started {counts[0]} processes on each of {counts[1]} machines, but devices={devices} and "
                f"num_nodes={num_nodes} were asked for. Leave both out, or let {by} start as many."
            )
        devices, num_nodes = counts
    from lightning_fabric import Fabric

    from counterpoise.engine.strategy import ReplicaStrategy

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


def precision_of(fabric: Fabric) -> str:
    """One of ``PRECISIONS``."""
    return str(fabric._precision.precision)


def started_by() -> tuple[str, int, int] | None:
    """Who started this process as one of several, how many on each machine, and on how many machines; or None."""
    env = os.environ
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        local, world = int(env["LOCAL_WORLD_SIZE"]), int(env["WORLD_SIZE"])
        return "torchrun", local, world // local
    # within srun, and not merely in a job that may call it; Fabric takes jobs of these names for a shell, and so do we
    if "SLURM_STEP_NUM_TASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        world, nodes = int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_STEP_NUM_NODES"])
        return "srun", world // nodes, nodes
    return None


def is_first() -> bool:
    """Whether this is the process of a run that speaks; known before Fabric is there, which takes seconds to import."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def on_device(batch: Batch, fabric: Fabric) -> Batch:
    """The batch on the device of this replica; numbers to predict in float32 where it has no float64."""
    device = fabric.device
    if device.type in precision.WITHOUT_FLOAT64:
        floats = {name: x for name, x in batch._asdict().items() if isinstance(x, Tensor) and x.is_floating_point()}
        batch = batch._replace(**{name: x.float() for name, x in floats.items()})
    waiting = device.type in ("cpu", "mps")  # copies that do not block give wrong numbers on Apple's GPUs
    return batch.moved(lambda x: x.to(device, non_blocking=not waiting))


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


def summed(value: Tensor, fabric: Fabric) -> Tensor:
    """The sum of a tensor over the replicas."""
    if fabric.world_size > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


class ReplicaLostError(RuntimeError):
    """Another process of the run ended, or cannot be reached any more."""


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """What the collectives report in terms of sockets when a process is gone, in words."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise ReplicaLostError(
            f"Process {fabric.global_rank} of {fabric.world_size} cannot go on, because another one ended or cannot be "
            "reached; what that one printed says why. With a run_dir, the same command with --resume (fit(..., "
            f"resume=True)) goes on from its last checkpoint. ({str(error).splitlines()[0]})"
        ) from error


def any_of(flag: bool, fabric: Fabric) -> bool:
    """Whether the flag is set on any replica."""
    return any_of_each([flag], fabric)[0]


def any_of_each(flags: list[bool], fabric: Fabric) -> list[bool]:
    """Of each flag, whether it is set on any replica."""
    if fabric.world_size == 1:
        return flags
    values = torch.tensor(flags, dtype=torch.uint8, device=fabric.device)
    torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]
