"""MSES: stop each modality when it, and not the whole, begins to overfit."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean, number, whole
from counterpoise.functional.precision import widest
from counterpoise.functional.stopping import Patience, expired, observe
from counterpoise.method import Info, Method
from counterpoise.types import FUSED, Output, Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class MSES(Method):
    r"""Modality-specific early stopping in multi-task training.

    .. math:: L = \ell_f + \lambda \sum_{m\ \text{active}} \ell_m

    After each epoch, with :math:`V_m` the validation loss of modality :math:`m`'s own head,
    :math:`S_m(e) = \beta S_m(e-1) + (1-\beta) V_m(e)` and :math:`e^*_m = \arg\min S_m`: when
    :math:`e - e^*_m > P`, its encoder and head return to what they were after epoch :math:`e^*_m` and
    stay there, batch-norm statistics included. What fuses keeps training, also on what it stopped.
    Training ends when every modality has stopped. With ``patience`` at least the number of epochs this
    is multi-task training, bit for bit.

    With ``joint`` (not in the paper) the fused prediction is a learner like the modalities, with
    :math:`V_f` its validation loss: none of them is stopped before its own patience is over, as their
    encoders may still learn what only all of them tell together.

    Args:
        patience: ``P``, epochs without improvement that are tolerated, >= 0.
        beta: memory of the smoothed loss, in [0, 1).
        weight: ``λ`` of the unimodal losses, >= 0.
        joint: stop no modality, and do not end, while the fused prediction improves.
        only: the modalities to train and to predict from; the others are neither read nor changed. None for all.

    Source: Fujimori et al., Modality-specific learning rate control for multimodal classification,
    ACPR 2019, https://openreview.net/forum?id=On2HBy27Y5a
    """

    info = Info(
        family="learning-rate",
        summary="Stops each modality at the epoch where its own validation loss was least.",
        paper="Fujimori et al., Modality-Specific Learning Rate Control for Multimodal Classification, ACPR 2019",
        url="https://openreview.net/forum?id=On2HBy27Y5a",
        fusions="any with heads=True",
        state="a copy of each encoder and head",
    )
    whole_batch = None
    own_heads = True
    smoothed: Tensor
    best: Tensor
    best_epoch: Tensor
    active: Tensor
    snapshots: nn.ModuleDict

    def __init__(
        self,
        patience: int = 10,
        beta: float = 0.6,
        weight: float = 1.0,
        joint: bool = False,
        only: Sequence[str] | None = None,
    ):
        super().__init__()
        self.patience = whole("patience", patience, low=0)
        self.beta = number("beta", beta, low=0, below=1)
        self.weight = number("weight", weight, low=0)
        self.joint = joint
        if only is not None and (isinstance(only, str) or not only):
            raise ValueError(f"only must be a list of modalities, or None for all; got {only!r}.")
        self.only = None if only is None else list(only)

    def setup(self, run: Run) -> None:
        model, modalities = run.model, self.reads(run.model.modalities)
        for name, value in Patience.start(len(modalities) + self.joint)._asdict().items():
            self.register_buffer(name, value.to(widest(run.device)) if value.is_floating_point() else value)
        self.register_buffer("active", torch.ones(len(modalities)))
        # Kept as frozen modules, so that checkpoints hold them and no optimizer sees them.
        copies = {m: nn.ModuleList(copy.deepcopy(model.branch_of(m))).requires_grad_(False) for m in modalities}
        self.snapshots = nn.ModuleDict(copies)

    def reads(self, modalities: tuple[str, ...]) -> tuple[str, ...]:
        if self.only is None:
            return modalities
        for m in self.only:
            if m not in modalities:
                raise ValueError(did_you_mean("modality", m, modalities))
        return tuple(m for m in modalities if m in self.only)

    def phase(self, index: int, run: Run) -> Phase | None:
        return Phase(run.epochs, train=None if self.only is None else tuple(self.only)) if index == 0 else None

    def loss(self, output: Output, step: Step) -> Tensor:
        loss = self.follow(output.logits, step)
        if self.weight == 0:
            return loss
        for a, m in zip(self.active, self.reads(step.model.modalities), strict=True):
            loss = loss + self.weight * a * self.follow(output.unimodal[m], step, step.present(m))
        return loss

    def follow(self, outputs: Tensor, step: Step, present: Tensor | None = None) -> Tensor:
        """Mean loss of one prediction, of the samples where ``present`` is True."""
        return step.criterion(outputs, present=present)

    def must_finish(self) -> str | None:
        return "it stops each modality by a rule of its own, and training when all have stopped"

    def must_own_loop(self) -> str | None:
        return "it freezes modalities, and ends training when all are frozen"

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        modalities, epoch = self.reads(run.model.modalities), run.epoch
        learners = (*modalities, FUSED) if self.joint else modalities
        values = torch.tensor([scores.get(f"{m}/loss", math.nan) for m in learners], device=self.smoothed.device)
        state = observe(Patience(self.smoothed, self.best, self.best_epoch), values, epoch, self.beta)
        late = expired(state, epoch, self.patience)
        late &= late[-1] | (not self.joint)
        for i, m in enumerate(modalities):
            if self.active[i] == 0:
                continue
            if state.best_epoch[i] == epoch:
                self._copy(run.model.branch_of(m), self._snapshot(m))
            elif late[i]:
                self._copy(self._snapshot(m), run.model.branch_of(m))
                run.freeze(m)
                self.active[i] = 0
        for name, value in state._asdict().items():
            getattr(self, name).copy_(value)
        if not self.active.any():
            run.stop()

    def _snapshot(self, modality: str) -> list[nn.Module]:
        return list(self.snapshots[modality].children())

    @staticmethod
    @torch.no_grad()
    def _copy(source: list[nn.Module], target: list[nn.Module]) -> None:
        """Parameters and buffers, in place."""
        for a, b in zip(source, target, strict=True):
            b.load_state_dict(a.state_dict())
