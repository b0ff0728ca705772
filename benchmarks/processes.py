"""Step time with one and two processes, one thread each: gradients in one piece, in buckets, and as DDP does it.

    python benchmarks/processes.py [--rounds 12]

Joint training of two ResNet-18 on small inputs, global batch 16, made-up data in memory. The cases with two
processes run in turn in the same two; rank 0 takes the times.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import counterpoise as cp
from counterpoise.data import from_arrays
from counterpoise.engine import Run, averaging, keep_freed_memory, make_fabric
from counterpoise.engine.step import Step

BATCH, CLASSES = 16, 6
SHAPES = {"audio": (1, 65, 48), "image": (3, 48, 48)}


def _run(fabric: Any) -> tuple[Run, Any]:
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(4 * BATCH, *shape, generator=generator) for m, shape in SHAPES.items()}
    data = from_arrays(inputs, torch.arange(4 * BATCH) % CLASSES, val=0.25, test=0.0)
    torch.manual_seed(0)
    encoders = {m: cp.encoders.ResNet18(channels=shape[0]) for m, shape in SHAPES.items()}
    model = cp.build_model(encoders, "Concat", num_classes=CLASSES, example=data.train)
    run = cp.Trainer(model, cp.methods.Joint(), batch_size=BATCH, progress=False, fabric=fabric).current
    run.open(data.train, data.train)
    run.make_optimizer()
    run.select()
    return run, next(run.loaders.get(data.train).batches(tuple(SHAPES)))


class _Whole(nn.Module):
    """The same update as one module, for DDP's wrapper."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model.fuse(self.model.encode(inputs, tuple(inputs), None), None)[0]


def _in_one_piece(loss: torch.Tensor, run: Run) -> None:
    """What this library did first: go back, then average everything in one collective."""
    loss.backward()
    grads = [p.grad for p in run.trainable() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    torch.distributed.all_reduce(flat)
    flat /= 2
    for g, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(mean.view_as(g))


def _cases(fabric: Any) -> dict[str, Callable[[], object]]:
    run, batch = _run(fabric)

    def ours() -> None:
        run.method.step(Step(run, batch, 1, 4))

    if fabric.world_size == 1:
        return {"one process": ours}

    def after() -> None:
        bucket, averaging.BUCKET = averaging.BUCKET, 2**40  # one bucket leaves when all of it is there
        ours()
        averaging.BUCKET = bucket

    def flat() -> None:
        step = Step(run, batch, 1, 4)
        _in_one_piece(step.criterion(step.forward().logits), run)
        step.update()

    def alone() -> None:
        step = Step(run, batch, 1, 4)
        step.criterion(step.forward().logits).backward()
        step.update()

    reference, _ = _run(fabric)
    wrapped = DistributedDataParallel(_Whole(reference.model))

    def ddp() -> None:
        F.cross_entropy(wrapped(batch.inputs), batch.target).backward()
        reference.update()

    return {"buckets": ours, "one bucket": after, "one piece, after": flat, "DDP": ddp, "nothing averaged": alone}


def _run(fabric: Any, rounds: int, out: Path) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    cases = _cases(fabric)
    seconds = measure.in_turn(cases, rounds, warmup=2)
    if fabric.is_global_zero:
        out.write_text(json.dumps(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for devices in (1, 2):
            out = Path(directory) / str(devices)
            fabric = make_fabric(accelerator="cpu", devices=2, start_method="fork") if devices == 2 else None
            if fabric is not None:
                fabric.launch(_run, rounds, out)
            else:  # in a process of its own: threads started here would not survive a fork
                measure.child([__file__, "--one", str(rounds), str(out)], OMP_NUM_THREADS="1")
            seconds |= json.loads(out.read_text())
    names = {
        "one process": "1 process, batch 16",
        "nothing averaged": "2 processes, nothing averaged (not training: the floor)",
        "buckets": "2 processes, 25 MiB buckets during the backward pass (this library)",
        "one bucket": "2 processes, one bucket, sent after the backward pass",
        "one piece, after": "2 processes, one flat copy, after the backward pass (before)",
        "DDP": "2 processes, PyTorch's DDP wrapper",
    }
    rows = [
        [
            text,
            measure.spread([1000 * s for s in seconds[name]], 0),
            "" if name == "one process" else measure.spread(measure.ratio(seconds, name, "one piece, after")),
        ]
        for name, text in names.items()
    ]
    body = (
        "Joint training of two ResNet-18 (22 million weights, 90 MB of gradients), 1×65×48 and 3×48×48, global batch "
        "16, one thread for each process, gloo over loopback, freed memory kept as the command line does. Milliseconds "
        "a step of the whole batch. The ratio is to one flat copy, within a round; one process ran by itself "
        "before.\n\n"
        + measure.table(["", "ms a step", "ratio to one flat copy"], rows)
        + "\n\nHere sending takes the cores that the backward pass would use. No network between machines was measured."
    )
    measure.publish("processes", "Processes", body)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _run(make_fabric(accelerator="cpu"), int(sys.argv[2]), Path(sys.argv[3]))
        print("{}")
    else:
        main()
