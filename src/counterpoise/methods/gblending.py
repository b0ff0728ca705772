"""Gradient-Blending: weigh the losses by how well each source generalises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from counterpoise._checks import choice, number, per_modality, whole
from counterpoise.data.splitting import held_out
from counterpoise.functional.blending import blend_weights
from counterpoise.method import Info, Method
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from counterpoise.data.split import Split
    from counterpoise.engine import Run, Step


class GBlending(Method):
    r"""Gradient-Blending (OGR-GB): fused and unimodal losses with weights estimated by trial runs.

    .. math:: L = \sum_{k=0}^{M} w_k L_k, \qquad w_k \propto \max(\Delta G_k, 0) / \Delta O_k^2

    for the sources "each modality" and "fused". A trial run trains one source alone for ``n`` epochs on
    a copy of the model; :math:`\Delta G` is what it gains on held-out samples and :math:`\Delta O` how far
    it overfits them (see ``counterpoise.functional.blend_weights``). The main run is not touched.

    The held-out samples are a stratified share of the training split, never the validation split that
    selects the weights of the model. Online, the main run leaves them out as long as another
    estimate follows, so that they stay unseen; in the last super-epoch it trains on everything.

    Args:
        schedule: "online" estimates again before every super-epoch from the weights reached so far;
            "offline" once, over as many epochs as the run has.
        super_epoch: ``n``, epochs between estimates (online), at least 1.
        holdout: share of the training split held out for the estimates, in (0, 1).
        weights: fixed weights instead of estimates: modality -> weight, and "fused"; missing ones are
            0, the sum is scaled to 1.

    Source: Wang, Tran and Feiszli, What makes training multi-modal classification networks hard?,
    CVPR 2020, https://arxiv.org/abs/1905.12681
    """

    info = Info(
        family="objective",
        summary="Weighs the fused and the unimodal losses by gain over overfitting, measured in trial runs.",
        paper="Wang, Tran and Feiszli, What Makes Training Multi-Modal Classification Networks Hard?, CVPR 2020",
        url="https://arxiv.org/abs/1905.12681",
        forward="3, trial runs included",
        backward="3, trial runs included",
        fusions="any with heads=True",
        state="M + 1 weights",
    )
    whole_batch = None
    own_heads = True
    blend: Tensor

    def __init__(
        self,
        schedule: str = "online",
        super_epoch: int = 10,
        holdout: float = 0.1,
        weights: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.schedule = choice("schedule", schedule, ("online", "offline"))
        self.super_epoch = whole("super_epoch", super_epoch, low=1)
        self.holdout = number("holdout", holdout, above=0, below=1)
        self.weights = weights

    def setup(self, run: Run) -> None:
        model = run.model
        blend = torch.full((len(model.modalities) + 1,), 1 / (len(model.modalities) + 1))
        if self.weights is not None:
            per_modality("weights", self.weights, (*model.modalities, "fused"))
            given = [number(f"weights[{k!r}]", w, low=0) for k, w in self.weights.items()]
            if sum(given) == 0:
                raise ValueError(f"weights must not all be 0; got {dict(self.weights)}.")
            blend = torch.tensor([self.weights.get(k, 0.0) / sum(given) for k in (*model.modalities, "fused")])
        self.register_buffer("blend", blend)

    def must_finish(self) -> str | None:
        return None if self._once else "every super-epoch has weights of its own"

    def must_own_loop(self) -> str | None:
        return "it measures its weights in trial runs" if self.weights is None else None

    def phase(self, index: int, run: Run) -> Phase | None:
        length = run.epochs if self._once else min(self.super_epoch, run.epochs)
        left = run.epochs - index * length
        if left <= 0:
            return None
        if self.weights is None:
            parts = self._parts(run)
            self.blend.copy_(self._estimate(run, length, parts))
            run.resample(parts.kept if left > length else None)
        return Phase(min(length, left), name="fit" if self._once else f"super-epoch {index + 1}")

    def loss(self, output: Output, step: Step) -> Tensor:
        terms = [(self.blend[-1], step.criterion(output.logits, step.batch.target))]
        terms += [
            (self.blend[i], step.unimodal_loss(output, m))
            for i, m in enumerate(step.model.modalities)
            if self.weights is None or self.weights.get(m, 0.0) > 0
        ]
        if step.index == 0:
            names = (*step.model.modalities, "fused")
            step.log(**{f"weight/{k}": w for k, w in zip(names, self.blend, strict=True)})
        return torch.stack([w * value for w, value in terms]).sum()

    @property
    def _once(self) -> bool:
        return self.schedule == "offline" or self.weights is not None

    def _parts(self, run: Run) -> _Parts:
        """The same at every call, so that a resumed run agrees."""
        split, seed = run.train_split, run.seed
        strata = split.task.strata(split.target)
        kept, held = held_out(strata, self.holdout, seed)  # a class with one sample stays on the training side
        # the training loss is measured on as many samples as the held-out one
        seen = kept[held_out(strata[kept], min(len(held) / len(kept), 0.5), seed)[1]]
        kept, held, seen = torch.from_numpy(kept), torch.from_numpy(held), torch.from_numpy(seen)
        return _Parts(kept, split.subset(kept), split.subset(seen), split.subset(held))

    def _estimate(self, run: Run, epochs: int, parts: _Parts) -> Tensor:
        """One weight per source: the modalities, then the fused head."""
        sources = (*run.model.modalities, "fused")
        seen, unseen = run.scores(parts.seen), run.scores(parts.unseen)
        # a schedule over the whole run is followed; over a part of it the rate is the one reached now
        lr = None if epochs == run.epochs else run.lr_now or run.optimizer_settings.lr
        rows = []
        for k in sources:
            trial = _Alone(k, parts.seen)
            run.fork(trial, epochs, train=parts.train, val=parts.unseen, lr=lr).fit()
            rows.append([scores.get(f"{k}/loss", math.nan) for scores in (seen, unseen, *trial.last)])
        t0, v0, t1, v1 = torch.tensor(rows, dtype=torch.float64).unbind(1)
        return blend_weights(t0, v0, t1, v1).to(self.blend)


class _Parts(NamedTuple):
    """Positions of the training split that are not held out, and what trial runs read."""

    kept: Tensor
    train: Split
    seen: Split
    unseen: Split


class _Alone(Method):
    """A trial run: one source and the parts of the model that it uses."""

    info = GBlending.info
    whole_batch = None
    own_heads = True

    def __init__(self, source: str, seen: Split):
        super().__init__()
        self.source, self.seen = source, seen
        self.only = None if source == "fused" else (source,)
        self.last: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {})

    def phase(self, index: int, run: Run) -> Phase | None:
        return Phase(run.epochs, train=self.only, name="trial") if index == 0 else None

    def forward(self, step: Step) -> Output:
        return step.forward(self.only)

    def loss(self, output: Output, step: Step) -> Tensor:
        if self.only is None:
            return step.criterion(output.logits, step.batch.target)
        return step.unimodal_loss(output, self.source)

    def reads(self, modalities: tuple[str, ...]) -> tuple[str, ...]:
        return self.only or modalities

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        if run.epoch == run.epochs - 1:  # of the last weights, not of the best
            self.last = run.scores(self.seen), scores
