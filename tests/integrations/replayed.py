"""What the Trainer did with some batches, for others to do the same."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from counterpoise import methods
from counterpoise.data.split import Splits
from counterpoise.engine import SGD, Observer, Run, Trainer
from counterpoise.integrations import parameter_groups
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.testing import task, tiny_model
from counterpoise.types import Batch

NAMES, EPOCHS, SIZE, LR = ("first", "second", "third"), 3, 18, 0.05
OPTIONS: dict[str, dict[str, Any]] = {
    "Unimodal": {"modality": "first"},
    "GBlending": {"weights": {"first": 0.5, "second": 1.0, "third": 0.2, "fused": 1.0}},
    "DOMFN": {"pretrain": 0},
    "OPM": {"warmup": 1},
    "MSLR": {"rates": {"first": 0.5, "second": 2.0}, "window": 1},
    "UMT": {"lam": 0},
    "ReLearning": {"every": 1},
}


def method_named(name: str) -> Method:
    return getattr(methods, name)(**OPTIONS.get(name, {}))


EVERY = [name for name in methods.__all__ if name != "Method"]
FREE = [name for name in EVERY if method_named(name).must_own_loop() is None]
OWN = sorted(set(EVERY) - set(FREE))


def slow(*names: str) -> list[Any]:
    """Cases of the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


class Seen(Observer):
    """Keeps the batches that the Trainer trains on, and the weights after each."""

    def __init__(self):
        self.batches: list[Batch] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_batch_start(self, run: Run, batch: Batch) -> None:
        self.batches.append(batch)

    def on_batch_end(self, run: Run) -> None:
        self.weights.append(weights_of(run.model))


class Trained(NamedTuple):
    """``model`` is as it was before training."""

    model: MultimodalModel
    data: Splits
    seen: Seen


def trained(name: str, *, absent: float = 0.0, norm: bool = True, **options: Any) -> Trained:
    """A model and what the Trainer makes of it."""
    method, seen = method_named(name), Seen()
    model, data = tiny_model(method, NAMES, norm=norm), task(NAMES, absent=absent)
    start = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*never closes.*")
        trainer = Trainer(
            model, method, epochs=EPOCHS, batch_size=SIZE, optimizer=SGD(lr=LR), progress=False, observers=[seen],
            accelerator="cpu", **options,
        )  # fmt: skip
        trainer.fit(data.train, data.val)
    return Trained(start, data, seen)


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def distance(model: torch.nn.Module, weights: dict[str, Tensor]) -> float:
    """The largest difference of a weight."""
    return max(float((p.detach() - weights[n]).abs().max()) for n, p in model.named_parameters())


def sgd(model: MultimodalModel) -> torch.optim.Optimizer:
    """As ``engine.SGD`` makes it."""
    return torch.optim.SGD(parameter_groups(model), lr=LR, momentum=0.9, weight_decay=1e-4)


class Samples(Dataset[Any]):
    """The samples of these batches one after another; a loader that does not shuffle gives the batches again."""

    def __init__(self, batches: list[Batch], *, flat: bool = False):
        self.inputs = {m: torch.cat([batch.inputs[m] for batch in batches]) for m in batches[0].inputs}
        self.target = torch.cat([batch.target for batch in batches])
        self.index = torch.cat([batch.index for batch in batches])
        self.flat = flat

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, i: int) -> Any:
        inputs = {m: x[i] for m, x in self.inputs.items()}
        if self.flat:
            return {**inputs, "labels": self.target[i], "index": self.index[i]}
        return inputs, self.target[i], self.index[i]


MOVED = ["OGMGE", "MSLR", *slow("MMPareto", "OPM", "PMR", "AGM", "LFM", "ModalityDropout")]
"""Cases of ``moves_as_in_the_trainer``."""


def moves_as_in_the_trainer(
    fitted: Callable[..., Any], name: str, folder: Path, *, sam: float = 0.0, ours: dict[str, Any] | None = None,
    **options: Any,
) -> None:  # fmt: skip
    """A host's trainer ends with the weights of ours; ``ours`` are our names of what the host has as ``options``."""
    run = trained(name, sam=sam, **(ours or {}))
    fitted(run, name, folder, sam=sam, **options)
    assert distance(run.model, run.seen.weights[-1]) <= 1e-6


RESUMED = ["PMR", *slow("OGMGE", "MSLR")]
"""Cases of ``goes_on_exactly``."""


def goes_on_exactly(fitted: Callable[..., Any], name: str, folder: Path, stopped: Callable[[Trained], Path]) -> None:
    """A host's trainer, resumed from what ``stopped`` leaves, ends as if it had not been, and as ours does."""
    run = trained(name)
    begun, resumed, whole = (run._replace(model=copy.deepcopy(run.model)) for _ in range(3))
    fitted(resumed, name, folder, resume=stopped(begun))
    fitted(whole, name, folder)
    for p, q in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert distance(resumed.model, run.seen.weights[-1]) <= 1e-6


def saved(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)
