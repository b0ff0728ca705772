"""What the engine and the methods add to a hand-written PyTorch loop that makes the same updates."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measure import in_turn, publish, ratio, spread, table
from torch import Tensor, nn

import counterpoise as cp
from counterpoise.data import from_arrays
from counterpoise.engine import Observer, Run, Trainer

BATCH, CLASSES = 16, 6
SHAPES = {"audio": (1, 129, 94), "image": (3, 112, 112)}
TINY = {"audio": (20,), "image": (12,)}


class Work:
    """Data in memory, made-up, and one way to build encoders for them."""

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        steps: int,
        device: str,
        clock: Callable[[], float] = time.perf_counter,
    ):
        torch.manual_seed(0)
        self.clock = clock
        self.steps, self.device, self.shapes = steps, torch.device(device), shapes
        n = BATCH * (steps + 1)
        self.y = torch.arange(n + 2 * CLASSES) % CLASSES
        self.x = {m: torch.randn(len(self.y), *shape) for m, shape in shapes.items()}
        self.data = from_arrays(self.x, self.y, split=["train"] * n + ["val"] * 2 * CLASSES)

    def encoders(self) -> dict[str, nn.Module]:
        """ResNet-18 for pictures and spectrograms, small MLPs for vectors."""
        return {
            m: cp.encoders.MLP(shape[0]) if len(shape) == 1 else cp.encoders.ResNet18(shape[0])
            for m, shape in self.shapes.items()
        }

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def engine(self, method: cp.Method, phases: int = 1, **options: Any) -> Callable[[], float]:
        """A case: seconds of ``steps`` steps of the last of ``phases`` phases, reading included."""
        clock = Clock(self)
        model = cp.build_model(
            self.encoders(),
            method.default_fusion,
            num_classes=CLASSES,
            heads=method.own_heads,
            example=self.data.train,
        )
        trainer = Trainer(
            model, method, epochs=phases, batch_size=BATCH, accelerator="gpu" if self.device.type == "cuda" else "cpu",
            observers=[clock], progress=False, optimizer=cp.engine.SGD(lr=1e-3), **options,
        )  # fmt: skip

        def case() -> float:
            trainer.fit(self.data.train, self.data.val)
            return clock.seconds

        return case

    def by_hand(self, only: tuple[str, ...], backward: int = 1) -> Callable[[], float]:
        """A case: the loop anybody would write, with the same encoders and the same kernels for the update.

        Args:
            only: the modalities that are read and trained, one linear head on their features.
            backward: backward passes per forward pass.
        """
        encoders = {m: e.to(self.device) for m, e in self.encoders().items() if m in only}
        dim = sum(int(e.dim) for e in encoders.values())  # pyright: ignore[reportArgumentType]
        head = nn.Linear(dim, CLASSES).to(self.device)
        parameters = [p for module in (*encoders.values(), head) for p in module.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)

        def step(rows: Tensor) -> None:
            z = [encoder(self.x[m][rows].to(self.device)) for m, encoder in encoders.items()]
            loss = F.cross_entropy(head(torch.cat(z, 1)), self.y[rows].to(self.device))
            for left in reversed(range(backward)):
                loss.backward(retain_graph=left > 0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        def case() -> float:
            batches = torch.randperm(BATCH * (self.steps + 1)).split(BATCH)
            step(batches[0])
            self.wait()
            started = self.clock()
            for rows in batches[1:]:
                step(rows)
            self.wait()
            return self.clock() - started

        return case

    def forward_only(self) -> Callable[[], None]:
        """A case: the features of the training data."""
        encoders = {m: e.to(self.device).eval() for m, e in self.encoders().items()}

        def case() -> None:
            with torch.no_grad():
                for rows in torch.arange(BATCH * (self.steps + 1)).split(BATCH):
                    for m, encoder in encoders.items():
                        encoder(self.x[m][rows].to(self.device))
            self.wait()

        return case

    def valuation(self) -> Callable[[], None]:
        """A case: what SMV computes between two epochs."""
        method = cp.methods.SMV()
        model = cp.build_model(self.encoders(), "Concat", num_classes=CLASSES)
        trainer = Trainer(
            model, method, batch_size=BATCH, accelerator="gpu" if self.device.type == "cuda" else "cpu", progress=False
        )

        def case() -> None:
            method.value(trainer.current, self.data.train)
            self.wait()

        return case


class Clock(Observer):
    """Seconds from the end of the first batch of a phase to the end of its last one."""

    def __init__(self, work: Work):
        self.work, self.seconds = work, 0.0

    def on_batch_end(self, run: Run) -> None:
        if run.state.batch_in_epoch == 1:
            self.work.wait()
            self.started = self.work.clock()
        elif run.state.batch_in_epoch == run.num_batches:
            self.work.wait()
            self.seconds = self.work.clock() - self.started


def cases(work: Work) -> tuple[dict[str, Callable[[], object]], list[tuple[str, str, str]]]:
    """The cases, and what is compared with what, and the bound."""
    one, both = next(iter(work.shapes)), tuple(work.shapes)
    order = [*reversed(both)]  # the last stage trains the first modality
    made: dict[str, Callable[[], object]] = {
        "joint, by hand": work.by_hand(both),
        "one branch, by hand": work.by_hand((one,)),
        "joint, 2 backward passes, by hand": work.by_hand(both, backward=2),
        "features of the training data, by hand": work.forward_only(),
        "Joint": work.engine(cp.methods.Joint()),
        "Joint with sam=0.05": work.engine(cp.methods.Joint(), sam=0.05),
        "IGM(gm=False, sam='off')": work.engine(cp.methods.IGM(gm=False, sam="off", stages=[1, 1], order=order), 2),
        "IGM(sam='off')": work.engine(cp.methods.IGM(sam="off", stages=[1, 1], order=order), 2),
        "IGM": work.engine(cp.methods.IGM(stages=[1, 1], order=order), 2),
        "valuation of SMV": work.valuation(),
    }
    for name in ("OGM", "PMR", "MSLR", "MSES", "AGM", "SMV", "MMPareto"):
        made[name] = work.engine(getattr(cp.methods, name)())
    against = [
        ("Joint", "joint, by hand", "1.03"),
        ("IGM(gm=False, sam='off')", "one branch, by hand", "1.03"),
        ("IGM(sam='off')", "IGM(gm=False, sam='off')", "1.03"),
        ("IGM", "IGM(gm=False, sam='off')", "2.05"),
        ("Joint with sam=0.05", "Joint", "2.05"),
        *((name, "Joint", "1.05") for name in ("OGM", "PMR", "MSLR", "MSES")),
        ("AGM", "Joint", "1.1"),
        ("SMV", "Joint", "1.1"),
        ("valuation of SMV", "features of the training data, by hand", "1.1"),
        ("MMPareto", "joint, 2 backward passes, by hand", "1.1"),
    ]
    return made, against


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    cp.engine.keep_freed_memory()
    work = Work(SHAPES, args.steps, args.device)
    made, against = cases(work)
    seconds = in_turn(made, args.rounds)
    rows = []
    for case, to, bound in against:
        step = statistics.median(seconds[case]) / args.steps * 1e3
        rows.append((case, f"{step:.0f} ms", to, spread(ratio(seconds, case, to), 3), bound))
    publish(
        "overhead",
        "Overhead of the engine and the methods",
        f"Two ResNet-18, sound 1x129x94 and picture 3x112x112, batches of {BATCH} from memory, SGD, on {args.device}; "
        f"{args.steps} steps a round, {args.rounds} rounds, all cases in turn in one process that keeps freed memory, "
        "as the command line does. By hand is a plain PyTorch loop over the same encoders with the same fused update. "
        "The SMV row is a step before anything is shown again; its valuation is one more forward pass over the "
        "training data.\n\n"
        f"{table(('', 'step', 'against', 'ratio', 'wanted, at most'), rows)}",
    )


if __name__ == "__main__":
    main()
