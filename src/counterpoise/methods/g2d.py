"""G2D: unimodal teachers guide the joint model, and the weakest modality trains first."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import number, whole
from counterpoise.functional.alignment import distillation_losses, feature_distances
from counterpoise.method import Info, Method
from counterpoise.methods.unimodal import Unimodal
from counterpoise.task import SingleLabel
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class Teacher(nn.Module):
    """A frozen copy of what predicts from one modality alone.

    Args:
        model: whose encoder and fusion are copied.
        modality: which one.
    """

    def __init__(self, model: MultimodalModel, modality: str):
        super().__init__()
        self.modality = modality
        self.encoder = copy.deepcopy(model.encoders[modality])
        self.fusion = copy.deepcopy(model.fusion)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (batch, dim) and logits (batch, classes)."""
        z = self.encoder(x).float()
        return z, self.fusion({self.modality: z})[1][self.modality]


class G2D(Method):
    r"""Gradient-guided distillation with sequential modality prioritisation.

    .. math:: L = \mathrm{CE}(f) + \alpha \sum_m \operatorname{mean}_{i,d}\, (z_m - z_m^T)^2
              + \beta \sum_m \mathrm{KL}\bigl(\mathrm{softmax}(t_m) \,\|\, \mathrm{softmax}(f)\bigr)

    with the features :math:`z_m^T` and logits :math:`t_m` of teachers that are trained first, one modality each,
    selected on validation and frozen. Modalities are ranked by their teachers' mean probability of the true class on
    the training samples; in stage after stage one modality trains alone, the weakest first, all but the strongest; then
    all train together. With ``alpha=0``, ``beta=0`` and ``stage=0`` no teacher is trained and this is joint training,
    bit for bit; with ``beta=0`` and ``stage=0`` it is UMT.

    Args:
        alpha: :math:`\alpha`, weight of the features' distances, at least 0.
        beta: :math:`\beta`, weight of the divergences, at least 0.
        temperature: of the divergences, > 0: logits are divided by it, and divergences multiplied by its square.
        stage: epochs of each modality alone, at least 0; None shares half of the run among them.
        teacher_epochs: epochs of each teacher; None for as many as the run has.

    Source: Rakib and Bagavathi, G2D: Boosting Multimodal Learning with Gradient-Guided Distillation, ICCV 2025,
    https://arxiv.org/abs/2506.21514
    """

    info = Info(
        family="objective",
        summary="Distils unimodal teachers into features and fused prediction, and trains weak modalities first.",
        paper="Rakib and Bagavathi, G2D: Boosting Multimodal Learning with Gradient-Guided Distillation, ICCV 2025",
        url="https://arxiv.org/abs/2506.21514",
        forward="2, and the teachers' training",
        backward="1/M in a stage, then 1; and the teachers' training",
        state="one frozen teacher per modality, and their ranking",
    )
    whole_batch = None
    tasks = (SingleLabel,)
    teachers: nn.ModuleDict
    order: Tensor

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        temperature: float = 1.0,
        stage: int | None = None,
        teacher_epochs: int | None = None,
    ):
        super().__init__()
        self.alpha = number("alpha", alpha, low=0)
        self.beta = number("beta", beta, low=0)
        self.temperature = number("temperature", temperature, above=0)
        self.stage = None if stage is None else whole("stage", stage, low=0)
        self.teacher_epochs = None if teacher_epochs is None else whole("teacher_epochs", teacher_epochs, low=1)
        self.teachers = nn.ModuleDict()

    def train(self, mode: bool = True) -> G2D:
        super().train(mode)
        self.teachers.eval()  # always: their statistics must not move
        return self

    def setup(self, run: Run) -> None:
        modalities = run.model.modalities
        self.register_buffer("order", torch.arange(len(modalities)))
        if self._stage_epochs(run) * (len(modalities) - 1) >= run.epochs:
            raise ValueError(
                f"stage={self.stage} leaves none of the {run.epochs} epochs for training together: "
                f"{len(modalities) - 1} modalities have a stage. Lower stage or raise epochs."
            )
        if self.alpha or self.beta or self._stage_epochs(run):
            self.teachers = nn.ModuleDict({m: Teacher(run.model, m) for m in modalities}).eval()

    def on_start(self, run: Run) -> None:
        if not self.teachers:
            return
        confidences = []
        for m, teacher in self.teachers.items():
            trial = run.fork(Unimodal(m), self.teacher_epochs or run.epochs).fit()
            teacher.load_state_dict(Teacher(trial.model, m).state_dict())
            confidences.append(_confidence(trial, m))
        self.order.copy_(torch.stack(confidences).argsort(stable=True))

    def phase(self, index: int, run: Run) -> Phase | None:
        names, length = run.model.modalities, self._stage_epochs(run)
        weak = [names[i] for i in self.order.tolist()[:-1]] if length else []
        phases = [Phase(length, train=(m,), read=names, name=f"{m} first") for m in weak]
        phases.append(Phase(run.epochs - length * len(weak)))
        return phases[index] if index < len(phases) else None

    def must_finish(self) -> str | None:
        return None if self.stage == 0 else "its modalities train one after another before all do"

    def loss(self, output: Output, step: Step) -> Tensor:
        loss = step.criterion(output.logits, step.batch.target)
        if self.alpha == self.beta == 0:
            return loss
        for m in self.teachers:
            z, present = output.features[m], step.present(m)
            taught, told = self._teach(step, m)
            loss = loss + self.alpha * step.average(feature_distances(z, taught), present, weighted=False)
            if self.beta:
                divergences = distillation_losses(output.logits, told, self.temperature)
                loss = loss + self.beta * step.average(divergences, present)
        return loss

    def _stage_epochs(self, run: Run) -> int:
        """Epochs of each stage."""
        return run.epochs // (2 * (len(run.model.modalities) - 1)) if self.stage is None else self.stage

    @torch.no_grad()
    def _teach(self, step: Step, modality: str) -> tuple[Tensor, Tensor]:
        """Features and logits of the teacher of a modality; rows of samples that lack it are zero."""
        x, present, teacher = step.batch.inputs[modality], step.present(modality), self.teachers[modality]
        if present is None:
            return teacher(x)
        rows = present.nonzero().flatten()  # as in the model, absent samples are not run
        widths = step.model.fusion.dims[modality], step.model.num_classes
        z, logits = (torch.zeros(len(x), width, device=x.device) for width in widths)
        if len(rows):
            some = teacher(x[rows])
            z, logits = z.index_copy(0, rows, some[0]), logits.index_copy(0, rows, some[1])
        return z, logits


def _confidence(trial: Run, modality: str) -> Tensor:
    """Mean score of a teacher on the training samples that have its modality, a scalar."""
    scores = []
    for batch, output in trial.outputs("train", (modality,)):
        score, there = trial.task.score(output.unimodal[modality], batch.target), output.there()
        scores.append(score if there is None else score[there[0]])
    return torch.cat(scores).mean()
