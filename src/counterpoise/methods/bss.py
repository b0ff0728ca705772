"""BSS: train on balanced samples first, or more often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional import rules
from counterpoise.functional.sequence import agreement, balance_scores, draw_weights, pace
from counterpoise.method import Info, Method
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel

READ_OUTS = ("unimodal", "all")
SCHEDULES = ("heuristic", "drawn", "ordered")


class BSS(Method):
    r"""Balance-aware sequence sampling in multi-task training: heuristic (BSS-H) or learned (BSS-L).

    With the mean cosine between the modalities' predictions,

    .. math:: s_i = \operatorname{minmax}_i\Bigl(\operatorname{mean}_{(a,b)} \cos(p_{a,i}, p_{b,i})\Bigr)
              - \operatorname{minmax}_i(l_i), \qquad
              l_i = w_f\, \mathrm{CE}_i(f) + w_u \sum_m \mathrm{CE}_i(u_m)

    is high for balanced samples. The loss is the mean of :math:`l_i`; which samples it is taken of, ``schedule`` says.

    * "heuristic": samples are ranked before training, with the weights as they are. Epoch t trains on the first
      :math:`\lfloor N \lambda_t \rfloor`, shuffled, with
      :math:`\lambda_t = \min\bigl(1, \sqrt{(1 - \lambda_0^2)(t + 1)/T_g + \lambda_0^2}\bigr)`. With ``start=1``,
      ``fused=1`` and ``unimodal=1`` this is multi-task training, bit for bit.
    * "drawn": every E epochs the scores are made anew, :math:`s \leftarrow \beta s + (1 - \beta) s^{new}`, and N
      samples are drawn, with replacement, by :math:`\mathrm{softmax}(s)`.
    * "ordered", the released form: every E epochs all samples are put in an order that is drawn without replacement
      by :math:`1 + s_i + 0.01`, so that balanced ones tend to come early in the epoch.

    Args:
        fused: :math:`w_f`, at least 0.
        unimodal: :math:`w_u`, at least 0.
        schedule: "heuristic", "drawn" or "ordered".
        start: :math:`\lambda_0`, about the share of samples at the start, in [0, 1]; "heuristic" only.
        growth: :math:`T_g`, epochs until all samples are in, at least 1; None for a third of the run; "heuristic" only.
        every: E, epochs for which scores and rows stay, at least 1; not "heuristic".
        memory: :math:`\beta` of the scores, in [0, 1); not "heuristic".
        read_out: what is predicted: the sum of the heads' logits ("unimodal"), or that and the fused logits ("all").

    Source: Guan et al., Balance-aware Sequence Sampling Makes Multi-modal Learning Better, IJCAI 2025,
    https://www.ijcai.org/proceedings/2025/
    """

    info = Info(
        family="data",
        summary="Trains on samples on which the modalities agree first, or more often, and on the others by and by.",
        paper="Guan et al., Balance-aware Sequence Sampling Makes Multi-modal Learning Better, IJCAI 2025",
        url="https://www.ijcai.org/proceedings/2025/",
        forward="1, and one evaluation of the training data; BSS-L: one every epoch",
        fusions="any with heads=True",
        state="the ranking, or scores",
    )
    whole_batch = None
    tasks = (SingleLabel,)
    own_heads = True
    order: Tensor
    scores: Tensor

    def __init__(
        self,
        fused: float = 0.1,
        unimodal: float = 0.9,
        schedule: str = "heuristic",
        start: float = 0.1,
        growth: int | None = None,
        every: int = 1,
        memory: float = 0.0,
        read_out: str = "unimodal",
    ):
        super().__init__()
        self.fused = number("fused", fused, low=0)
        self.unimodal = number("unimodal", unimodal, low=0)
        self.schedule = choice("schedule", schedule, SCHEDULES)
        self.start = number("start", start, low=0, high=1)
        self.growth = None if growth is None else whole("growth", growth, low=1)
        self.every = whole("every", every, low=1)
        self.memory = number("memory", memory, low=0, below=1)
        self.read_out = choice("read_out", read_out, READ_OUTS)

    def setup(self, run: Run) -> None:
        count = len(run.train_split)
        if self.schedule == "heuristic":
            self.register_buffer("order", torch.arange(count))
        else:
            self.register_buffer("scores", torch.zeros(count))

    def must_finish(self) -> str | None:
        lets_in = self.schedule == "heuristic" and self.start < 1
        return "it lets in the training samples by and by" if lets_in else None

    def must_own_loop(self) -> str | None:
        return "it chooses the samples of every epoch"

    def on_start(self, run: Run) -> None:
        if self.schedule == "heuristic":
            self.order.copy_(self._scored(run).argsort(descending=True, stable=True))

    def on_epoch_start(self, run: Run) -> None:
        if self.schedule == "heuristic":
            total = len(self.order)
            share = pace(run.epoch, self.growth or max(1, run.epochs // 3), self.start)
            count = max(int(total * share), run.batch_size)
            run.resample(self.order[:count] if count < total else None)
        elif run.epoch % self.every == 0:
            scores = self._scored(run).to(self.scores)
            self.scores.copy_(scores if run.epoch == 0 else self.memory * self.scores + (1 - self.memory) * scores)
            weights, ordered = draw_weights(self.scores.cpu(), self.schedule), self.schedule == "ordered"
            rows = torch.multinomial(weights, len(weights), replacement=not ordered, generator=run.generator)
            run.resample(rows, ordered=ordered)

    def loss(self, output: Output, step: Step) -> Tensor:
        own = sum(step.unimodal_loss(output, m) for m in output.unimodal)
        return self.fused * super().loss(output, step) + self.unimodal * own

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        logits = rules.total(torch.stack(list(output.unimodal.values())), output.there())
        return logits if self.read_out == "unimodal" else logits + output.logits

    def _scored(self, run: Run) -> Tensor:
        """(samples,) balance scores of the training split in its order, on the CPU."""
        agreements, losses = [], []
        for batch, output in run.outputs("train"):
            logits, there = torch.stack(list(output.unimodal.values())), output.there()
            own = torch.stack([run.loss(u, batch.target) for u in logits])
            if there is not None:  # as if what a sample lacks had the mean loss of what it has
                own = own * there * len(own) / there.sum(0).clamp(min=1)
            agreements.append(agreement(logits.softmax(2), there).cpu())
            losses.append((self.fused * run.loss(output.logits, batch.target) + self.unimodal * own.sum(0)).cpu())
        return balance_scores(torch.cat(agreements), torch.cat(losses))
