"""What a student learns from: samples with what a teacher says of them, and the method that follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterpoise._digests import digest
from counterpoise.data.layout import Layout
from counterpoise.data.split import Split, lacking
from counterpoise.engine.reuse import unencoded
from counterpoise.functional import distillation_losses, feature_distances, label_distillation_losses
from counterpoise.method import Info
from counterpoise.methods import MSES
from counterpoise.task import MultiLabel, Regression, SingleLabel, Task
from counterpoise.types import Present, who_has

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class Taught(Split):
    """Samples of several splits, one after the other, and what a teacher says of each.

    The first split has the labels. The target of the others is what the teacher decides; no student's loss looks at it.

    Args:
        sources: what to read: the labelled samples, then others of the same modalities.
        told: (n, width) outputs of the teacher, as the task of the first part has them.
        teacher: a hash of what said so.
    """

    def __init__(self, sources: Sequence[Split], told: Tensor, teacher: str):
        first, counts = sources[0], [len(source) for source in sources]
        self.sources, self.told, self.teacher = sources, told, teacher
        self.starts = torch.tensor([0, *counts]).cumsum(0)
        self.modalities, self.task = first.modalities, first.task
        self.readers, self.collate = first.readers, first.collate
        self.ids = [name for source in sources for name in source.ids]
        self.target = torch.cat([first.target, decided(self.task, told[len(first) :]).to(first.target.dtype)])
        masks = {m: torch.cat([who_has(m, s.present, len(s)) for s in sources]) for m in first.modalities}
        self.present = lacking(masks)
        if first.weight is not None:
            others = first.weight.mean().expand(sum(counts[1:]))
            self.weight = torch.cat([first.weight, others])

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        present = None if self.present is None else {m: mask[list(indices)] for m, mask in self.present.items()}
        return self.read_together(indices, [modality], seed, present)[modality]

    def read_together(
        self, indices: Sequence[int], modalities: Sequence[str], seed: int | None, present: Present = None
    ) -> dict[str, Tensor]:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        owner = torch.bucketize(rows, self.starts, right=True) - 1
        read = list[tuple[Tensor, dict[str, Tensor]]]()
        for i in owner.unique().tolist():
            at = (owner == i).nonzero().flatten()
            masks = None if present is None else {m: mask[at] for m, mask in present.items()}
            own = (rows[at] - self.starts[i]).tolist()
            read.append((at, self.sources[i].read_together(own, modalities, seed, masks)))
        if len(read) == 1:
            return read[0][1]
        return {m: self._merged(m, [(at, x[m]) for at, x in read], present, len(rows)) for m in modalities}

    def _merged(self, modality: str, pieces: Sequence[tuple[Tensor, Tensor]], present: Present, count: int) -> Tensor:
        asked = who_has(modality, present, count)
        pieces = [(at, x) for at, x in pieces if asked[at].any()]  # of the others nothing was read
        if not pieces:
            return torch.zeros(count)
        first = pieces[0][1]
        if modality not in self.collate:
            whole = first.new_zeros(count, *first.shape[1:])
            for at, x in pieces:
                whole[at] = x
            return whole
        samples = {int(i): x for at, batch in pieces for i, x in zip(at, batch, strict=True)}
        return self.collate[modality]([samples.get(i, torch.zeros_like(first[0])) for i in range(count)])

    def layout(self, modality: str) -> Layout:
        return self.sources[0].layout(modality)

    def recording(self, modality: str) -> str:
        return self.sources[0].recording(modality)

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        i = int(torch.bucketize(torch.tensor(index), self.starts, right=True)) - 1
        return self.sources[i].altered(index - int(self.starts[i]), modality, alter)

    def fingerprint(self) -> str:
        return digest(*(source.fingerprint() for source in self.sources), self.teacher)


def decided(task: Task, outputs: Tensor) -> Tensor:
    """The target that outputs (n, width) amount to: the class, the labels or the numbers that are predicted."""
    if isinstance(task, SingleLabel):
        return outputs.argmax(1)
    return task.predictions(outputs) if isinstance(task, Regression) else (outputs > 0).to(outputs.dtype)


def losses_to(task: Task, student: Tensor, teacher: Tensor) -> Tensor:
    """(batch,) how far a student's outputs are from a teacher's: divergences, or half the squared error of numbers."""
    if isinstance(task, Regression):
        return feature_distances(student, teacher) / 2
    divergences = label_distillation_losses if isinstance(task, MultiLabel) else distillation_losses
    return divergences(student, teacher)


class Student(MSES):
    r"""MSES on what a teacher predicts in place of the labels; ``counterpoise.distil`` makes its data.

    .. math:: L = \ell(f, t) + \lambda \sum_{m\ \text{active}} \ell(u_m, t), \qquad
              \ell(f, t) = \mathrm{KL}\bigl(\mathrm{softmax}(t) \,\|\, \mathrm{softmax}(f)\bigr)

    with :math:`t` the outputs of the teacher on all modalities; of labels the divergence is the mean over them, of
    numbers it is half the squared error. Validation, by which modalities stop and weights are selected, has its labels.
    The paper's temperature is 1 and the share of the labels in the loss 0: other values were not better.

    Args:
        patience: as in ``MSES``.
        beta: as in ``MSES``.
        weight: as in ``MSES``.
        joint: as in ``MSES``.
        only: as in ``MSES``.
        teacher: whose student it is, for the record.

    Source: Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015,
    https://arxiv.org/abs/1503.02531
    """

    info = Info(
        family="objective",
        summary="Learns what a trained model predicts instead of the labels, with MSES's stopping.",
        paper="Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015",
        url="https://arxiv.org/abs/1503.02531",
        fusions="any with heads=True",
        state="as MSES",
    )
    told: Tensor | None

    def __init__(
        self,
        patience: int = 10,
        beta: float = 0.6,
        weight: float = 1.0,
        joint: bool = False,
        only: Sequence[str] | None = None,
        teacher: str = "",
    ):
        super().__init__(patience, beta, weight, joint, only)
        self.teacher = teacher

    def setup(self, run: Run) -> None:
        super().setup(run)
        told = getattr(unencoded(run.train_split), "told", None)
        # with the data, not in checkpoints: a model that is loaded elsewhere has no use for it
        self.register_buffer("told", None if told is None else told.to(run.device), persistent=False)

    def on_start(self, run: Run) -> None:
        if self.told is None:
            raise ValueError(
                "Student learns what a teacher says of the training samples, which these data do not hold. Train with "
                "cp.distil(teacher, data), or `counterpoise distil TEACHER`."
            )

    def follow(self, outputs: Tensor, step: Step, present: Tensor | None = None) -> Tensor:
        assert self.told is not None
        return step.average(losses_to(step.task, outputs, self.told[step.batch.index]), present)
