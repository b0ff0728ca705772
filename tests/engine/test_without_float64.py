"""A device that has no float64, as Apple's GPUs: a stand-in refuses it for whatever was put on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from counterpoise import methods
from counterpoise.engine.replicas import make_fabric
from counterpoise.functional import precision
from counterpoise.task import _constant
from counterpoise.testing import NAMES, trainer_for


class StandIn(TorchFunctionMode):
    """Knows what is on the device by an attribute, which results inherit until ``cpu()``."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is Tensor.cpu:
            return result.clone()
        if function in (Tensor.__setattr__, Tensor.requires_grad_):
            return result
        given = tree_flatten((args, kwargs))[0]
        there = any(isinstance(x, Tensor) and (isinstance(x, torch.nn.Parameter) or is_there(x)) for x in given)
        for made in tree_flatten(result)[0] if there else ():
            if isinstance(made, Tensor):
                put(made)
        return result


def is_there(x: Tensor) -> bool:
    return "on_device" in x.__dict__


def put(x: Tensor) -> Tensor:
    if x.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    x.__dict__["on_device"] = True
    return x


@pytest.mark.filterwarnings("ignore:DOMFN's gate")
@pytest.mark.parametrize("kind", ["single-label", "multi-label", "regression"])
@pytest.mark.parametrize("name", ["Joint", "OGM", "MSES", "MSLR", "GBlending", "MLA", "SMV", "IGM"])
def test_fits_and_evaluates(name: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    make = getattr(methods, name)
    if kind not in {task.kind for task in make.tasks}:
        pytest.skip(f"{name} is not for {kind} targets")
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", frozenset({"mps", "cpu"}))
    _constant.cache_clear()
    fabric = make_fabric(accelerator="cpu")
    plain = fabric.to_device

    def to_device(what: Any) -> Any:
        moved = plain(what)
        tensors = (
            [*moved.parameters(), *moved.buffers()] if isinstance(moved, torch.nn.Module) else tree_flatten(moved)[0]
        )
        for x in tensors:
            if isinstance(x, Tensor):
                put(x)
        return moved

    monkeypatch.setattr(fabric, "to_device", to_device)
    fusion = "Sum" if name == "MSLR" else None
    trainer, data = trainer_for(make, NAMES[:2], fusion, kind=kind, epochs=2, fabric=fabric)
    try:
        with StandIn():
            scores = trainer.run(data)["test"]
        assert all(torch.isfinite(torch.tensor(value)) for value in scores.values())
    finally:
        _constant.cache_clear()


def test_the_stand_in_refuses():
    x = put(torch.ones(3))
    with StandIn():
        for wide in (lambda: x.double(), lambda: x.sum(dtype=torch.float64), lambda: (2 * x).to(torch.float64)):
            with pytest.raises(TypeError, match="float64"):
                wide()
        assert x.cpu().double().dtype == torch.float64
