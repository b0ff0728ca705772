"""A joint step at CREMA-D's shapes: memory layout, bf16 and torch.compile, by hand and through the Trainer."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measure import in_turn, publish, ratio, spread, table
from torch import nn

import counterpoise as cp
from counterpoise.data import from_arrays
from counterpoise.engine import Observer, Run, Trainer

BATCH, CLASSES = 12, 6
SHAPES = {"audio": (1, 257, 188), "visual": (3, 224, 224)}
PLAIN, OURS = "by hand, contiguous, float32", "Trainer, float32"


def by_hand(steps: int, device: str, *, last: bool, bf16: bool) -> Callable[[], float]:
    """A case: seconds of ``steps`` steps of a plain loop on one batch.

    Args:
        steps: how many.
        device: "cpu" or "cuda".
        last: weights laid out channels-last.
        bf16: under autocast.
    """
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    nets = [cp.encoders.ResNet18(shape[0]).to(device, memory_format=layout) for shape in SHAPES.values()]
    head = nn.Linear(1024, CLASSES).to(device)
    inputs = [torch.randn(BATCH, *shape, device=device) for shape in SHAPES.values()]
    target = (torch.arange(BATCH) % CLASSES).to(device)
    parameters = [p for module in (*nets, head) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def case() -> float:
        wait(device)
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                logits = head(torch.cat([net(x) for net, x in zip(nets, inputs, strict=True)], 1))
            F.cross_entropy(logits.float(), target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        wait(device)
        return time.perf_counter() - started

    return case


def through_trainer(steps: int, device: str, **options: Any) -> Callable[[], float]:
    """A case: the same through the engine, reading from memory included."""
    torch.manual_seed(0)
    n = BATCH * (steps + 1)
    y = torch.arange(n + CLASSES) % CLASSES
    inputs = {m: torch.randn(len(y), *shape) for m, shape in SHAPES.items()}
    data = from_arrays(inputs, y, split=["train"] * n + ["val"] * CLASSES)
    model = cp.build_model({m: cp.encoders.ResNet18(s[0]) for m, s in SHAPES.items()}, "Concat", num_classes=CLASSES)
    clock = Clock(device)
    trainer = Trainer(
        model, cp.methods.Joint(), epochs=1, batch_size=BATCH, accelerator="gpu" if device == "cuda" else "cpu",
        observers=[clock], progress=False, optimizer=cp.engine.SGD(lr=1e-3), **options,
    )  # fmt: skip

    def case() -> float:
        trainer.fit(data.train, data.val)
        return clock.seconds

    return case


class Clock(Observer):
    """Seconds from the end of an epoch's first batch to the end of its last."""

    def __init__(self, device: str):
        self.device, self.seconds = device, 0.0

    def on_batch_end(self, run: Run) -> None:
        if run.state.batch_in_epoch == 1:
            wait(self.device)
            self.started = time.perf_counter()
        elif run.state.batch_in_epoch == run.num_batches:
            wait(self.device)
            self.seconds = time.perf_counter() - self.started


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--no-compile", action="store_true", help="leave out the cases that need a compiler")
    args = parser.parse_args()
    how = (args.steps, args.device)
    cases: dict[str, Callable[[], object]] = {
        PLAIN: by_hand(*how, last=False, bf16=False),
        "by hand, channels-last, float32": by_hand(*how, last=True, bf16=False),
        "by hand, contiguous, bf16": by_hand(*how, last=False, bf16=True),
        "by hand, channels-last, bf16": by_hand(*how, last=True, bf16=True),
        OURS: through_trainer(*how),
        "Trainer, bf16": through_trainer(*how, precision="bf16-mixed"),
    }
    if not args.no_compile:
        cases["Trainer, float32, compile=True"] = through_trainer(*how, compile=True)
        cases["Trainer, bf16, compile=True"] = through_trainer(*how, compile=True, precision="bf16-mixed")
    seconds = in_turn(cases, args.rounds)
    rows = [
        (
            name,
            f"{statistics.median(found) / args.steps:.3f} s",
            spread(ratio(seconds, PLAIN, name), 2, "x"),
            spread(ratio(seconds, OURS, name), 2, "x"),
        )
        for name, found in seconds.items()
    ]
    publish(
        "modern",
        "Memory layout, bf16 and torch.compile",
        f"A joint step of two ResNet-18 at CREMA-D's shapes (1x257x188 and 3x224x224), batches of {BATCH}, SGD, on "
        f"{args.device}; {args.steps} steps a round, {args.rounds} rounds, all cases in turn in one process. By hand "
        "is a plain PyTorch loop on one batch; the Trainer reads its batches from memory, and lays the weights of its "
        "convolutions out channels-last.\n\n"
        f"{table(('', 'step', f'faster than {PLAIN}', f'faster than {OURS}'), rows)}",
    )


if __name__ == "__main__":
    main()
