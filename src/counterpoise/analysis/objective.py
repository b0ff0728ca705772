"""The loss of a trained model over a split, as a function of its weights: what landscapes and curvature are of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from counterpoise._checks import choice, did_you_mean, whole
from counterpoise.data.split import Split
from counterpoise.model import MultimodalModel
from counterpoise.types import FUSED, Batch, Output

STATISTICS = ("kept", "recomputed")
Loss = Callable[[], Iterable[Tensor]]
"""Gives the summands of a loss at the present weights, each with a graph; their sum is the loss."""
Criterion = Callable[[Tensor, Tensor], Tensor]
"""(outputs, target) -> (batch,)."""
Predict = Callable[[Output, MultimodalModel], Tensor]
"""(output, model) -> (batch, classes), as ``Method.predict``."""
Counts = Callable[[Tensor, Tensor | None], Tensor | None]
"""(targets, weights of the samples or None) -> (batch,) how much each counts, None for all alike; ``Loss.counted``."""


def sample(split: Split, count: int, seed: int = 0) -> Split:
    """``count`` samples of a split, drawn without repetition; the split itself when it has no more than that."""
    whole("count", count, low=1)
    if len(split) <= count:
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.subset(order[:count].sort().values)


def batches(
    split: Split,
    modalities: Sequence[str],
    batch_size: int,
    device: torch.device | str = "cpu",
    order: Tensor | None = None,
) -> Iterator[Batch]:
    """The samples of a split for evaluation (no augmentation), in order or in ``order``."""
    rows = torch.arange(len(split)) if order is None else order
    for chunk in rows.split(batch_size):
        inputs = {m: split.batch(chunk.tolist(), m, None).to(device) for m in modalities}
        masks = {m: p[chunk] for m, p in (split.present or {}).items()}
        present = {m: p.to(device) for m, p in masks.items() if not p.all()} or None
        weight = None if split.weight is None else split.weight[chunk].to(device)
        yield Batch(inputs, split.target[chunk].to(device), chunk.to(device), present, weight)


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and exactly the modes from before outside."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode


@contextmanager
def differentiable(params: Iterable[Tensor]) -> Iterator[None]:
    """Gradients by these parameters can be taken inside, also by those that are frozen for the moment."""
    frozen = [p for p in params if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


class SplitLoss:
    """The mean loss of one prediction over a split, at whatever the weights are when it is called.

    Calling it gives one summand per batch; their sum is the mean loss. The model is in evaluation mode
    (no dropout) inside, and modes and running statistics are put back afterwards. The samples are read once
    and stay in memory: pass ``sample(split, n)`` of a large split.

    Args:
        model: a trained model.
        split: over which samples.
        prediction: ``"fused"``, or a modality: its own prediction, over the samples that have it.
        statistics: what batch normalisation uses at weights other than the trained ones. ``"kept"``: the
            running statistics of training, as at test time. ``"recomputed"``: the mean over the batches of
            this split of their own statistics, measured anew at every point.
        batch_size: samples of a batch; matters only for ``"recomputed"``.
        criterion: (logits, target) -> (batch,) losses; the task's own by default.
        counts: how much each sample counts in the mean; all alike by default.
        predict: the fused logits of an output, where a method has a rule of its own (``Method.predict``).
        only: the modalities that the fused prediction reads; None for all.
        double: work in float64, on a copy of the model (attribute ``model``).

    Raises:
        ValueError: for an unknown modality, or when no sample has it.
    """

    def __init__(
        self,
        model: MultimodalModel,
        split: Split,
        prediction: str = FUSED,
        *,
        statistics: str = "kept",
        batch_size: int = 256,
        criterion: Criterion | None = None,
        counts: Counts | None = None,
        predict: Predict | None = None,
        only: Collection[str] | None = None,
        double: bool = False,
    ):
        if prediction != FUSED and prediction not in model.modalities:
            raise ValueError(did_you_mean("prediction", prediction, [FUSED, *model.modalities]))
        self.model = copy.deepcopy(model).double() if double else model
        self.prediction, self.statistics = prediction, choice("statistics", statistics, STATISTICS)
        self.predict, self.double = predict, double
        self.criterion, self.counts = criterion or model.task.losses, counts
        self.modalities = model.select(only) if prediction == FUSED else (prediction,)
        if prediction != FUSED and split.present is not None and prediction in split.present:
            split = split.subset(split.present[prediction].nonzero().flatten())
        if not len(split):
            raise ValueError(f"split: no sample to evaluate {prediction!r} on.")
        self.samples = len(split)
        device = next(self.model.parameters()).device
        self._batches = [self._wide(b) for b in batches(split, self.modalities, batch_size, device)]
        weights = [w for batch in self._batches if (w := self._weights(batch)) is not None]
        self._total = sum(float(w.sum()) for w in weights) if weights else self.samples
        if not self._total > 0:
            raise ValueError(f"split: every sample to evaluate {prediction!r} on has the weight 0.")

    def _wide(self, batch: Batch) -> Batch:
        if not self.double:
            return batch
        inputs = {m: x.double() if x.is_floating_point() else x for m, x in batch.inputs.items()}
        return batch._replace(inputs=inputs)

    def _weights(self, batch: Batch) -> Tensor | None:
        return None if self.counts is None else self.counts(batch.target, batch.weight)

    def _sum(self, batch: Batch) -> Tensor:
        losses, weights = self.criterion(self._logits(batch), batch.target), self._weights(batch)
        return losses.sum() if weights is None else (losses * weights).sum()

    def _logits(self, batch: Batch) -> Tensor:
        output = self.model(batch.inputs, self.modalities, batch.present)
        if self.prediction != FUSED:
            output = output.alone(self.prediction)
        return output.logits if self.predict is None else self.predict(output, self.model)

    def __call__(self) -> Iterator[Tensor]:
        """The summands of the mean loss, one per batch."""
        with evaluation(self.model), self._normalisation():
            for batch in self._batches:
                yield self._sum(batch) / self._total

    def parameters(self) -> dict[str, nn.Parameter]:
        """Name -> trainable parameter that this prediction depends on; frozen ones stay out."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        with evaluation(self.model):
            first = self._sum(self._batches[0])
        used = torch.autograd.grad(first, list(named.values()), allow_unused=True)
        return {name: p for (name, p), g in zip(named.items(), used, strict=True) if g is not None}

    @contextmanager
    def _normalisation(self) -> Iterator[None]:
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        if self.statistics == "kept" or not norms:
            yield
            return
        kept = [(m, m.momentum, [b.clone() for b in m.buffers(recurse=False)]) for m in norms]
        try:
            for m in norms:
                m.reset_running_stats()
                m.momentum, m.training = None, True  # a plain mean over the batches
            with torch.no_grad():
                for batch in self._batches:
                    if len(batch.target) > 1 or len(self._batches) == 1:  # one sample has no variance
                        self._logits(batch)
            for m in norms:
                m.training = False
            yield
        finally:
            for m, momentum, buffers in kept:
                m.momentum = momentum
                for buffer, value in zip(m.buffers(recurse=False), buffers, strict=True):
                    buffer.copy_(value)


@contextmanager
def summands(loss: Loss) -> Iterator[Iterator[Tensor]]:
    """The summands of a loss; whatever ends the block, the loss puts back what it changed.

    Where gradients are taken, kernels without a second derivative (fused attention, cuDNN's recurrent networks) are
    off inside.
    """
    with ExitStack() as kernels:
        if torch.is_grad_enabled():
            kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
            kernels.enter_context(torch.backends.cudnn.flags(enabled=False))
        parts = loss()
        try:
            yield iter(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()


@torch.no_grad()
def value(loss: Loss) -> float:
    """The loss at the present weights, summed up in float64."""
    with summands(loss) as parts:
        return float(torch.stack(list(parts)).cpu().double().sum())


def gradient(loss: Loss, params: Sequence[Tensor]) -> list[Tensor]:
    """The gradient at the present weights, one tensor per parameter (zeros where unused); ``.grad`` stays as it is."""
    total = [torch.zeros_like(p) for p in params]
    with torch.enable_grad(), summands(loss) as parts:
        for part in parts:
            grads = torch.autograd.grad(part, params, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(total, list(grads))  # pyright: ignore[reportPrivateImportUsage]
    return total


@contextmanager
def weights_kept(params: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The weights may be moved inside; they come back bit for bit, also after an error. Yields copies of them."""
    start = [p.detach().clone() for p in params]
    try:
        yield start
    finally:
        put(params, start)


@torch.no_grad()
def put(params: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write these values into the parameters."""
    for p, v in zip(params, values, strict=True):
        p.copy_(v)
