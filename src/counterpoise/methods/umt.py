"""UMT: each modality learns from a teacher that saw nothing else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import number, whole
from counterpoise.functional.alignment import feature_distances
from counterpoise.method import Info, Method
from counterpoise.methods.unimodal import Unimodal
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class UMT(Method):
    r"""Uni-modal teacher: joint training whose features stay close to those of unimodal models.

    .. math:: L = \mathrm{CE}(f, y) + \lambda \sum_m \mathrm{mean}_{i,d}\,(z_m - z^T_m)^2

    The teachers have the student's encoders, are trained first, one modality each, and selected on
    the validation split; they stay in evaluation mode and are part of the checkpoint. With ``lam=0`` no
    teacher is trained and this is joint training, bit for bit.

    Args:
        lam: weight of the distance, >= 0.
        teacher_epochs: epochs of each teacher; None for as many as the run has.

    Source: Du et al., Improving multi-modal learning with uni-modal teachers, 2021,
    https://arxiv.org/abs/2106.11059
    """

    info = Info(
        family="objective",
        summary="Distils the features of unimodal teachers into the encoders of the joint model.",
        paper="Du et al., Improving Multi-Modal Learning with Uni-Modal Teachers, 2021; "
        "On Uni-Modal Feature Learning in Supervised Multi-Modal Learning, ICML 2023",
        url="https://arxiv.org/abs/2106.11059",
        forward="2, and the teachers' training",
        backward="1, and the teachers' training",
        state="one frozen teacher per modality",
    )
    whole_batch = None
    teachers: nn.ModuleDict

    def __init__(self, lam: float = 10.0, teacher_epochs: int | None = None):
        super().__init__()
        self.lam = number("lam", lam, low=0)
        self.teacher_epochs = None if teacher_epochs is None else whole("teacher_epochs", teacher_epochs, low=1)
        self.teachers = nn.ModuleDict()

    def train(self, mode: bool = True) -> UMT:
        super().train(mode)
        self.teachers.eval()  # always: their statistics must not move
        return self

    def setup(self, run: Run) -> None:
        if self.lam == 0:
            return
        copies = {m: copy.deepcopy(e).requires_grad_(False) for m, e in run.model.encoders.items()}
        self.teachers = nn.ModuleDict(copies).eval()

    def must_own_loop(self) -> str | None:
        return "it trains a teacher of each modality in a run of its own" if self.lam else None

    def on_start(self, run: Run) -> None:
        for m, teacher in self.teachers.items():
            trial = run.fork(Unimodal(m), self.teacher_epochs or run.epochs).fit()
            teacher.load_state_dict(trial.model.encoders[m].state_dict())

    def loss(self, output: Output, step: Step) -> Tensor:
        loss = step.criterion(output.logits, step.batch.target)
        for m in self.teachers:
            loss = loss + self.lam * self._distance(output.features[m], step, m)
        return loss

    def _distance(self, student: Tensor, step: Step, modality: str) -> Tensor:
        """Mean over the samples of the global batch that have the modality."""
        x, present = step.batch.inputs[modality], step.present(modality)
        if present is None:
            distances = feature_distances(student, self._teach(modality, x))
        else:
            rows = present.nonzero().flatten()  # as in the model, absent samples are not run
            distances = student.sum(1) * 0.0
            if len(rows):
                distances = distances.index_add(
                    0, rows, feature_distances(student[rows], self._teach(modality, x[rows]))
                )
        return step.average(distances, present, weighted=False)

    @torch.no_grad()
    def _teach(self, modality: str, x: Tensor) -> Tensor:
        return self.teachers[modality](x).float()
