"""Data Remixing: of each sample only the modality that separates least, in batches that show one modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional.remixing import bits_from_uniform, least_separating, remixed_rows
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step

ORDERS = ("random", "blocks")


class DataRemixing(Method):
    r"""Data Remixing: after a warm-up, each sample shows the modality that separates it least, in pure batches.

    Warm-up: :math:`L = \mathrm{CE}(f) + a \sum_m \mathrm{CE}(u_m)`. Then, before every epoch and in evaluation mode,

    .. math:: D_{m,i} = \sum_c p_{m,i,c} \log_2(C\, p_{m,i,c}), \qquad m^*_i = \operatorname{argmin}_m D_{m,i},

    sample i shows :math:`m^*_i` alone, batches hold samples that show the same modality, and

    .. math:: L = \mathrm{CE}(f) + \gamma\, \mathrm{CE}(u_{m^*})

    with f of what is shown. In a pure batch all that belongs to a hidden modality rests: encoder, head, block of the
    fusion, running statistics, momentum. With ``warmup`` at least the number of epochs and ``unimodal=1`` this is
    multi-task training, bit for bit.

    Args:
        unimodal: a, at least 0.
        gamma: :math:`\gamma`, at least 0.
        warmup: epochs on whole samples, at least 0; None for a sixth of the run, and at least 1.
        order: of the batches: "random", or "blocks" for modality after modality, the released form.
        mixed: train on what fills no pure batch too, in whole batches at the end of the epoch.

    Source: Ma et al., Improving Multimodal Learning Balance and Sufficiency through Data Remixing, ICML 2025,
    https://arxiv.org/abs/2506.11550
    """

    info = Info(
        family="data",
        summary="Shows of each sample the modality that separates it least, in batches that show one modality.",
        paper="Ma et al., Improving Multimodal Learning Balance and Sufficiency through Data Remixing, ICML 2025",
        url="https://arxiv.org/abs/2506.11550",
        forward="1 in the warm-up, then 1/M and one evaluation of the training data per epoch",
        backward="1 in the warm-up, then 1/M",
        fusions="any with heads=True",
    )
    whole_batch = None
    tasks = (SingleLabel,)
    own_heads = True

    def __init__(
        self,
        unimodal: float = 0.5,
        gamma: float = 1.0,
        warmup: int | None = None,
        order: str = "random",
        mixed: bool = False,
    ):
        super().__init__()
        self.unimodal = number("unimodal", unimodal, low=0)
        self.gamma = number("gamma", gamma, low=0)
        self.warmup = None if warmup is None else whole("warmup", warmup, low=0)
        self.order = choice("order", order, ORDERS)
        self.mixed = mixed

    def setup(self, run: Run) -> None:
        if run.sampler is not None:  # now, and not after the warm-up
            raise ValueError(
                f"sampler={run.sampler!r} draws the samples of an epoch in an order of its own, and DataRemixing fills "
                "batches by what samples show. Leave sampler out."
            )

    def must_finish(self) -> str | None:
        return "it hides modalities after its warm-up, and scores fall with them"

    def must_own_loop(self) -> str | None:
        return "it chooses the samples of every epoch"

    def on_epoch_start(self, run: Run) -> None:
        if self._warm(run.epoch, run.epochs):
            return
        shown = self._shown(run)
        rows = remixed_rows(shown, run.batch_size, run.generator, blocks=self.order == "blocks", mixed=self.mixed)
        present = {m: shown[rows] == i for i, m in enumerate(run.model.modalities)}
        run.resample(rows, present, ordered=True)
        run.log({f"{m}/shown": (shown == i).float().mean() for i, m in enumerate(run.model.modalities)})

    def loss(self, output: Output, step: Step) -> Tensor:
        fused = super().loss(output, step)
        if self._warm(step.epoch, step.phase.epochs):
            return fused + self.unimodal * sum(step.unimodal_loss(output, m) for m in output.unimodal)
        own = torch.stack([step.losses(u) for u in output.unimodal.values()], dim=1)
        return fused + self.gamma * step.average((own * has(step)).sum(1))

    @torch.no_grad()
    def modulate(self, output: Output, step: Step) -> None:
        if self._warm(step.epoch, step.phase.epochs):
            return
        counts = step.sum(has(step).sum(0).float())  # over the replicas: a mixed batch may hide it on one of them only
        for m, count in zip(step.model.modalities, counts.tolist(), strict=True):
            if count == 0:
                for p in step.model.parameters_of(m):
                    p.grad = None  # else momentum and weight decay would move it

    def _warm(self, epoch: int, epochs: int) -> bool:
        return epoch < (max(1, epochs // 6) if self.warmup is None else self.warmup)

    def _shown(self, run: Run) -> Tensor:
        """(samples,) number of the modality that each sample of the training split shows, on the CPU."""
        shown = []
        for _, output in run.outputs("train"):
            bits = bits_from_uniform(torch.stack(list(output.unimodal.values())))
            shown.append(least_separating(bits, output.there()).cpu())
        return torch.cat(shown)
