"""The contract suite: what every training method must do, third-party ones included.

In a test file::

    import pytest
    from counterpoise.testing import CHECKS, check_method

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_method(check):
        check_method(lambda: MyMethod(strength=0.5), fusion="Concat", checks=[check])

Each check trains on a tiny made-up task for a few batches. ``same_on_replicas`` starts a second process and
takes seconds, so it is not among ``CHECKS``; run it on its own.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.build import build_model
from counterpoise.data.arrays import ArraySplit, from_arrays
from counterpoise.data.split import Splits
from counterpoise.engine import SGD, Observer, Run, Trainer, make_fabric
from counterpoise.method import Method, OwnRadiusError
from counterpoise.model import MultimodalModel

NAMES = ("first", "second", "third", "fourth")
DIM, CLASSES, LR, KIND = 6, 3, 0.05, "single-label"


def task(modalities: Sequence[str], *, kind: str = KIND, absent: float = 0.0, n: int = 90, seed: int = 0) -> Splits:
    """A made-up task: every modality tells the class, each later one with more noise.

    Of several labels, one is the class's own and another is whether its number is even; of numbers, one is the class
    number in tens and the other falls with its square.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    inputs, present = {}, {}
    for place, m in enumerate(modalities):
        signal = F.one_hot(y, DIM).float() * 2.0
        inputs[m] = signal + (0.7 + 0.4 * place) * torch.randn(n, DIM, generator=generator)
        present[m] = torch.rand(n, generator=generator) >= absent
    present[modalities[0]] |= ~torch.stack(list(present.values())).any(0)  # somebody is always there
    labels = {
        "single-label": y,
        "multi-label": torch.cat([F.one_hot(y, CLASSES), 1 - y.unsqueeze(1) % 2], 1),
        "regression": torch.stack([10.0 * y, 3.0 - y.square()], 1),
    }
    shown = present if absent else None
    return from_arrays(inputs, labels[kind], val=0.2, test=0.2, present=shown, seed=seed, task=kind)


def tiny_model(
    method: Method,
    modalities: Sequence[str],
    fusion: Any = None,
    *,
    norm: bool = True,
    seed: int = 1,
    kind: str = KIND,
) -> MultimodalModel:
    """Encoders of one hidden layer (with batch normalisation unless ``norm`` is False) and a fusion."""
    torch.manual_seed(seed)
    encoders = {
        m: nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU(), nn.Linear(8, 5))
        for m in modalities
    }
    data = task(modalities, kind=kind)
    return build_model(
        encoders, fusion or method.default_fusion, task=data.task, heads=method.own_heads, example=data.train
    )


def trainer_for(
    make: Callable[[], Method],
    modalities: Sequence[str] = NAMES[:2],
    fusion: Any = None,
    *,
    lr: float = LR,
    norm: bool = True,
    absent: float = 0.0,
    kind: str = KIND,
    **options: Any,
) -> tuple[Trainer, Splits]:
    """A trainer for a tiny model and task, and the task."""
    method = make()
    options = {"epochs": 4, "batch_size": 18, "optimizer": SGD(lr=lr), "progress": False, **options}
    if "fabric" not in options:
        options["accelerator"] = "cpu"
    model = tiny_model(method, modalities, fusion, norm=norm, kind=kind)
    return Trainer(model, method, **options), task(modalities, kind=kind, absent=absent)


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor of model and method, buffers included, as clones."""
    state = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    state |= {f"method.{k}": v for k, v in trainer.method.state_dict().items() if isinstance(v, Tensor)}
    return {k: v.detach().clone() for k, v in state.items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys(), set(a) ^ set(b)
    different = [k for k in a if not torch.equal(a[k], b[k])]
    assert not different, f"not bit-identical: {different}"


class _StoppedError(RuntimeError):
    """A process dies, as it were."""


class _StopAfter(Observer):
    """Raises after so many batches: a process that dies."""

    def __init__(self, batches: int):
        self.left = batches

    def on_batch_end(self, run: Run) -> None:
        self.left -= 1
        if self.left == 0:
            raise _StoppedError("stopped by the test")


# -- the checks: (make, modalities, fusion) -> None, AssertionError when broken ------------------------
def trains(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """It learns: the fused training loss falls, everything stays finite, the model is in the selected state."""
    trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, epochs=12)
    before = trainer.evaluate(data.train)["fused/loss"]
    trainer.fit(data.train, data.val)
    after = trainer.evaluate(data.train)
    assert all(torch.isfinite(v).all() for v in everything(trainer).values() if v.is_floating_point())
    assert after["fused/loss"] < before, (before, after["fused/loss"])
    if kind == "single-label":
        assert after["fused/accuracy"] > 1 / CLASSES + 0.15, after["fused/accuracy"]


def resumes_exactly(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Stopped inside any epoch and resumed, it ends bit-identical to a run that was never interrupted."""
    whole, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind)
    whole.fit(data.train, data.val)
    for batches in (1, 4, 8):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "run"
            cut, data = trainer_for(
                make, modalities, fusion, lr=lr, kind=kind, run_dir=path, observers=[_StopAfter(batches)]
            )
            with suppress(_StoppedError):
                cut.fit(data.train, data.val)
            again, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, run_dir=path)
            again.fit(data.train, data.val, resume=True)
            assert_same(everything(whole), everything(again))
            timeless = [[{k: v for k, v in r.items() if k != "seconds"} for r in t.history] for t in (whole, again)]
            assert timeless[0] == timeless[1], "metrics differ after resuming"


def combines_with_sam(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """A SAM radius around it changes what is learnt, and leaves everything finite."""
    results = []
    for sam in (0.0, 0.5):
        trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, sam=sam)
        try:
            trainer.fit(data.train, data.val)
        except OwnRadiusError:
            return
        results.append(everything(trainer))
    assert all(torch.isfinite(v).all() for v in results[1].values() if v.is_floating_point())
    assert any(not torch.equal(results[0][k], results[1][k]) for k in results[0]), "SAM had no effect"


def accepts_absent(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Samples that lack a modality, in training and evaluation, break nothing."""
    trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, absent=0.3)
    trainer.fit(data.train, data.val)
    scores = trainer.evaluate(data.train)
    assert all(torch.isfinite(torch.tensor(list(scores.values()))))
    assert all(torch.isfinite(v).all() for v in everything(trainer).values() if v.is_floating_point())


def runs_in_bf16(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Mixed precision: no dtype clash, parameters stay float32."""
    trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, precision="bf16-mixed")
    trainer.fit(data.train, data.val)
    assert all(v.dtype != torch.bfloat16 for v in everything(trainer).values())
    assert all(torch.isfinite(v).all() for v in everything(trainer).values() if v.is_floating_point())


def survives_degenerate_batches(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Batches of one class, and inputs that are all zero, leave every weight finite."""
    trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, batch_size=6, norm=False)
    order = torch.argsort(data.train.target.reshape(len(data.train), -1)[:, 0], stable=True)
    train = data.train.subset(order)
    trainer.fit(train, data.val)
    assert all(torch.isfinite(v).all() for v in everything(trainer).values() if v.is_floating_point())
    trainer, _ = trainer_for(make, modalities, fusion, lr=lr, kind=kind, norm=False)
    data = task(modalities, kind=kind)
    blank = [
        ArraySplit({m: torch.zeros(len(part), DIM) for m in modalities}, part.target, part.task)
        for part in (data.train, data.val)
    ]
    trainer.fit(*blank)
    assert all(torch.isfinite(v).all() for v in everything(trainer).values() if v.is_floating_point())


def keeps_its_settings(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Constructor arguments are attributes, the method copies, holds no module of the model, and has a table row."""
    from counterpoise._checks import settings

    method = make()
    assert settings(type(method)(**settings(method))).keys() == settings(method).keys()
    copy.deepcopy(method)
    assert method.info.summary
    assert method.info.paper
    trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, epochs=3)
    trainer.fit(data.train, data.val)
    model_modules = {id(module) for module in trainer.model.modules()}
    assert not [name for name, module in trainer.method.named_modules() if id(module) in model_modules]


def same_on_replicas(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Two processes with half the batch each end with the weights of one (no batch normalisation; slow)."""
    one, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, norm=False)
    one.fit(data.train, data.val)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights.pt"
        fabric = make_fabric(accelerator="cpu", devices=2, start_method="fork")
        fabric.launch(
            partial(_replica, make=make, modalities=tuple(modalities), fusion=fusion, path=path, lr=lr, kind=kind)
        )
        two = torch.load(path, weights_only=True)
    _assert_close(everything(one), two)


def _assert_close(reference: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """To rounding in float32."""
    assert reference.keys() == other.keys()
    for name, value in reference.items():
        if value.is_floating_point() and value.numel():
            scale = value.abs().max().clamp_min(1e-3)
            assert ((value - other[name]).abs().max() / scale) <= 1e-5, name


def adds_up_in_parts(
    make: Callable[[], Method], modalities: Sequence[str], fusion: Any, lr: float = LR, kind: str = KIND
) -> None:
    """Batches that come in parts (``accumulate``) give the weights of whole ones, unless the method refuses them."""
    if make().whole_batch is not None:
        return
    runs = []
    for accumulate in (1, 4):
        trainer, data = trainer_for(
            make, modalities, fusion, lr=lr, kind=kind, norm=False, absent=0.3, epochs=2, accumulate=accumulate
        )
        trainer.fit(data.train, data.val)
        runs.append(everything(trainer))
    _assert_close(*runs)


def _replica(
    fabric: Any, make: Callable[[], Method], modalities: Sequence[str], fusion: Any, path: Path, lr: float, kind: str
) -> None:
    torch.set_num_threads(1)
    trainer, data = trainer_for(make, modalities, fusion, lr=lr, kind=kind, norm=False, fabric=fabric)
    trainer.fit(data.train, data.val)
    if fabric.is_global_zero:
        torch.save(everything(trainer), path)


CHECKS = (
    trains,
    resumes_exactly,
    combines_with_sam,
    accepts_absent,
    runs_in_bf16,
    adds_up_in_parts,
    survives_degenerate_batches,
    keeps_its_settings,
)


def check_method(
    make: Callable[[], Method],
    *,
    modalities: Sequence[str] | int = 2,
    fusion: Any = None,
    lr: float = LR,
    kind: str = KIND,
    checks: Iterable[Callable[..., None]] = CHECKS,
) -> None:
    """Run the contract checks on a method.

    Args:
        make: builds a fresh method; called several times.
        modalities: their names, or how many (1 to 4).
        fusion: name or builder of the fusion; None takes the method's default.
        lr: learning rate of SGD, where the method needs a gentler one.
        kind: of the task: single-label, multi-label or regression.
        checks: which ones.

    Raises:
        AssertionError: what was broken.
    """
    if isinstance(make, Method):
        name = type(make).__name__
        raise ValueError(f"make must build a fresh method each time: pass the class {name}, or lambda: {name}(...).")
    names = NAMES[:modalities] if isinstance(modalities, int) else tuple(modalities)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="SAM radius")
        for check in checks:
            check(make, names, fusion, lr, kind)
