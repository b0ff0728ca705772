"""Learning rates of modalities in an optimizer that is somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from counterpoise.engine.optim import parameter_groups as groups_of
from counterpoise.method import Method
from counterpoise.model import MultimodalModel


def parameter_groups(model: MultimodalModel) -> list[dict[str, Any]]:
    """What an optimizer is made over when a method sets the learning rate of each modality.

    One group per modality, named after it, and one that is called "shared", without parameters that do not train.
    """
    groups = groups_of(model, Method(), {id(p) for p in model.parameters() if p.requires_grad})
    return [{name: value for name, value in group.items() if name != "factor"} for group in groups if group["params"]]


class Rates:
    """Multiplies the learning rate of each modality while an optimizer steps, and puts it back after.

    So the host's own schedule goes on undisturbed.

    Args:
        optimizer: whose groups each hold parameters of one modality, as ``parameter_groups`` makes them.
        model: whose.
        scales: gives modality -> factor, as the method has set them.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, model: MultimodalModel, scales: Callable[[], Mapping[str, float]]
    ):
        self._optimizer, self._scales = optimizer, scales
        self._owner: dict[int, str] = {id(p): m for m in model.modalities for p in model.parameters_of(m)}
        self._before: list[Any] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._multiply),
            optimizer.register_step_post_hook(self._restore),
        ]

    def close(self) -> None:
        """Leave the optimizer alone."""
        for hook in self._hooks:
            hook.remove()

    def changed(self) -> None:
        """Take new factors, also inside a step; ValueError when parameters with different ones are in one group."""
        if self._before:  # the loss was computed in a closure, as Lightning does it
            self._restore()
            self._multiply()
        for place, group in enumerate(self._optimizer.param_groups):
            self._factor(place, group["params"])

    def _factor(self, place: int, params: list[nn.Parameter]) -> float:
        scales = self._scales()
        factors = {scales.get(self._owner.get(id(p), ""), 1.0) for p in params}
        if len(factors) > 1:
            raise ValueError(
                f"optimizer: group {place} holds parameters of several modalities, whose learning rates differ. "
                "Make it over counterpoise.integrations.parameter_groups(model)."
            )
        return factors.pop() if factors else 1.0

    def _multiply(self, *_: object) -> None:
        groups = self._optimizer.param_groups
        self._before = [group["lr"] for group in groups]
        for place, group in enumerate(groups):
            factor = self._factor(place, group["params"])
            if factor != 1:
                group["lr"] = group["lr"] * factor

    def _restore(self, *_: object) -> None:
        for group, lr in zip(self._optimizer.param_groups, self._before, strict=True):
            group["lr"] = lr
        self._before = []
