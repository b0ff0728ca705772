"""ReLearning: an encoder that fits what it has seen much better than what it has not goes back towards its start."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import number, whole
from counterpoise._extras import require
from counterpoise.functional.relearning import k_means, purity, return_share, scaled
from counterpoise.method import Info, Method
from counterpoise.methods._scores import labelled_features
from counterpoise.task import SingleLabel

if TYPE_CHECKING:
    from counterpoise.data.split import Split
    from counterpoise.engine import Run

Labelled = tuple[Tensor, Tensor]


class ReLearning(Method):
    r"""Diagnosing and re-learning: joint training in which over-trained encoders are partly reset.

    After some epochs, with :math:`P` the purity of k-means clusters of modality m's features, as many as there are
    classes, each dimension between -1 and 1:

    .. math:: \alpha_m = \tanh\bigl(\lambda\, | P_m^{train} - P_m^{val} | \bigr), \qquad
              \theta_m \leftarrow \alpha_m \theta_m^{start} + (1 - \alpha_m)\, \theta_m

    for the weights of its encoder; heads, fusion and the optimizer's state stay. The start is what the model had when
    training began, for pre-trained encoders the pre-trained weights. With ``lam=0`` or ``times=0`` this is joint
    training, bit for bit.

    Args:
        lam: :math:`\lambda`, at least 0.
        every: epochs between two returns; the first is after epoch number ``every``, counted from 0. None fits
            ``times`` returns into the run: epochs / (times + 1).
        times: most returns, at least 0.
        samples: most samples of each split that are clustered, drawn anew each time.
        statistics: return the running statistics of normalisation too.

    Source: Wei et al., Diagnosing and Re-learning for Balanced Multimodal Learning, ECCV 2024,
    https://arxiv.org/abs/2407.09705
    """

    info = Info(
        family="learning-rate",
        summary="Returns encoders towards their start where features separate seen samples better than unseen ones.",
        paper="Wei et al., Diagnosing and Re-learning for Balanced Multimodal Learning, ECCV 2024",
        url="https://arxiv.org/abs/2407.09705",
        forward="1, and two evaluations per return",
        state="a copy of each encoder",
    )
    whole_batch = None
    tasks = (SingleLabel,)
    initial: nn.ModuleDict

    def __init__(
        self, lam: float = 3.0, every: int | None = None, times: int = 3, samples: int = 10000, statistics: bool = False
    ):
        super().__init__()
        require("ReLearning", "sklearn")
        self.lam = number("lam", lam, low=0)
        self.every = None if every is None else whole("every", every, low=1)
        self.times = whole("times", times, low=0)
        self.samples = whole("samples", samples, low=1)
        self.statistics = statistics

    def setup(self, run: Run) -> None:
        encoders = run.model.encoders if self._acts else {}
        copies = {m: copy.deepcopy(e).requires_grad_(False) for m, e in encoders.items()}
        self.initial = nn.ModuleDict(copies)

    def must_finish(self) -> str | None:
        return "it returns encoders towards their start, and scores fall with them" if self._acts else None

    @property
    def _acts(self) -> bool:
        return self.lam > 0 and self.times > 0

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        every = self.every or max(1, run.epochs // (self.times + 1))
        due = run.epoch % every == 0 and 0 < run.epoch <= self.times * every and run.epoch + 1 < run.epochs
        if not self._acts or not due:
            return
        seen, unseen = self._features(run, run.train_split), self._features(run, run.val_split)
        for m in run.model.modalities:
            share = self._share(run, m, seen[m], unseen[m])
            self._return(run.model.encoders[m], self.initial[m], share)
            run.log({f"{m}/returned": share})

    def _features(self, run: Run, split: Split) -> dict[str, Labelled]:
        """Features and classes of the samples that have each modality, at most ``samples`` of the split."""
        if len(split) > self.samples:
            split = split.subset(torch.randperm(len(split), generator=run.generator)[: self.samples])
        return labelled_features(run, split)

    def _share(self, run: Run, modality: str, seen: Labelled, unseen: Labelled) -> float:
        """How far the encoder of a modality goes back; 0 with a warning where there is too little to cluster."""
        clusters, purities = run.model.num_classes, []
        for name, (features, target) in (("training", seen), ("validation", unseen)):
            if len(features) < clusters:
                warnings.warn(
                    f"ReLearning leaves {modality!r} as it is: {len(features)} {name} samples have it, and their "
                    f"features are sorted into {clusters} clusters.",
                    stacklevel=2,
                )
                return 0.0
            seed = int(torch.randint(1 << 31, (), generator=run.generator))
            purities.append(purity(k_means(scaled(features), clusters, seed), target))
        return return_share(purities[0], purities[1], self.lam)

    @torch.no_grad()
    def _return(self, encoder: nn.Module, start: nn.Module, share: float) -> None:
        """In place, so that the optimizer and whoever watches the tensors keep them."""
        pairs: list[tuple[Tensor, Tensor]] = [*zip(encoder.parameters(), start.parameters(), strict=True)]
        if self.statistics:
            pairs.extend(zip(encoder.buffers(), start.buffers(), strict=True))
        for now, then in pairs:
            if now.is_floating_point():
                now.lerp_(then, share)
