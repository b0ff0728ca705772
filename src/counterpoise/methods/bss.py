"""BSS: train on balanced samples first, and let in the others by and by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional.sequence import agreement, balance_scores, pace
from counterpoise.method import Info, Method
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel

READ_OUTS = ("unimodal", "all")


class BSS(Method):
    r"""Balance-aware sequence sampling with the heuristic schedule (BSS-H), in multi-task training.

    Before training, with the weights as they are and the mean cosine between the modalities' predictions,

    .. math:: s_i = \operatorname{minmax}_i\Bigl(\operatorname{mean}_{(a,b)} \cos(p_{a,i}, p_{b,i})\Bigr)
              - \operatorname{minmax}_i(l_i), \qquad
              l_i = w_f\, \mathrm{CE}_i(f) + w_u \sum_m \mathrm{CE}_i(u_m)

    ranks the samples. Epoch t trains on the first :math:`\lfloor N \lambda_t \rfloor` of them, in random order, by the
    mean of :math:`l_i`, with :math:`\lambda_t = \min\bigl(1, \sqrt{(1 - \lambda_0^2)(t + 1)/T_g + \lambda_0^2}\bigr)`.
    With ``start=1``, ``fused=1`` and ``unimodal=1`` this is multi-task training, bit for bit.

    Args:
        fused: :math:`w_f`, at least 0.
        unimodal: :math:`w_u`, at least 0.
        start: :math:`\lambda_0`, about the share of samples at the start, in [0, 1].
        growth: :math:`T_g`, epochs until all samples are in, at least 1; None for a third of the run.
        read_out: what is predicted: the sum of the heads' logits ("unimodal"), or that and the fused logits ("all").

    Source: Guan et al., Balance-aware Sequence Sampling Makes Multi-modal Learning Better, IJCAI 2025,
    https://www.ijcai.org/proceedings/2025/
    """

    info = Info(
        family="data",
        summary="Trains on samples on which the modalities agree first, and lets in the others by and by.",
        paper="Guan et al., Balance-aware Sequence Sampling Makes Multi-modal Learning Better, IJCAI 2025",
        url="https://www.ijcai.org/proceedings/2025/",
        forward="1, and one evaluation of the training data",
        fusions="any with heads=True",
        state="the ranking",
    )
    tasks = (SingleLabel,)
    own_heads = True
    order: Tensor

    def __init__(
        self,
        fused: float = 0.1,
        unimodal: float = 0.9,
        start: float = 0.1,
        growth: int | None = None,
        read_out: str = "unimodal",
    ):
        super().__init__()
        self.fused = number("fused", fused, low=0)
        self.unimodal = number("unimodal", unimodal, low=0)
        self.start = number("start", start, low=0, high=1)
        self.growth = None if growth is None else whole("growth", growth, low=1)
        self.read_out = choice("read_out", read_out, READ_OUTS)

    def setup(self, run: Run) -> None:
        self.register_buffer("order", torch.arange(len(run.train_split)))

    def must_finish(self) -> str | None:
        return None if self.start == 1 else "it lets in the training samples by and by"

    def on_start(self, run: Run) -> None:
        scores = balance_scores(*self._agreements_and_losses(run))
        self.order.copy_(scores.argsort(descending=True, stable=True))

    def on_epoch_start(self, run: Run) -> None:
        total = len(self.order)
        share = pace(run.epoch, self.growth or max(1, run.epochs // 3), self.start)
        count = max(int(total * share), run.batch_size)
        run.resample(self.order[:count] if count < total else None)

    def loss(self, output: Output, step: Step) -> Tensor:
        own = sum(step.unimodal_loss(output, m) for m in output.unimodal)
        return self.fused * super().loss(output, step) + self.unimodal * own

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        there = output.there()
        logits = torch.stack(list(output.unimodal.values()))
        logits = logits.sum(0) if there is None else (logits * there.unsqueeze(2)).sum(0)
        return logits if self.read_out == "unimodal" else logits + output.logits

    def _agreements_and_losses(self, run: Run) -> tuple[Tensor, Tensor]:
        """(samples,) each, of the training split in its order, on the CPU."""
        agreements, losses = [], []
        for batch, output in run.outputs("train"):
            logits, there = torch.stack(list(output.unimodal.values())), output.there()
            own = torch.stack([run.loss(u, batch.target) for u in logits])
            if there is not None:  # as if what a sample lacks had the mean loss of what it has
                own = own * there * len(own) / there.sum(0).clamp(min=1)
            agreements.append(agreement(logits.softmax(2), there).cpu())
            losses.append((self.fused * run.loss(output.logits, batch.target) + self.unimodal * own.sum(0)).cpu())
        return torch.cat(agreements), torch.cat(losses)
