"""Who contributes and who learns: Shapley shares of a score, gradients per modality, overfitting against gain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import whole
from counterpoise.analysis.objective import Counts, Criterion, Predict, batches, evaluation
from counterpoise.data.split import Split
from counterpoise.functional.blending import overfitting_to_generalization
from counterpoise.functional.gradients import cosine, global_norm
from counterpoise.functional.means import masked_mean
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley
from counterpoise.metrics.balance import subset_name, subsets
from counterpoise.model import MultimodalModel


# -- contributions -------------------------------------------------------------------------------------
@torch.no_grad()
def subset_hits(
    model: MultimodalModel, split: Split, *, predict: Predict | None = None, batch_size: int = 256
) -> dict[str, float]:
    """Mean of ``Task.hits`` of the fused prediction from subsets of the modalities, ``"audio+image"`` -> in [0, 1].

    For classes that is the accuracy.

    Those of ``metrics.subsets``, and for more than ``LATTICE`` modalities those that ``contributions`` samples.
    A modality that is left out is absent for every sample. All subsets are scored on all samples; one that has
    none of a subset's modalities counts as wrong, so that the subsets are comparable.

    Args:
        model: a trained model.
        split: on which samples.
        predict: the fused logits of an output, where a method has a rule of its own (``Method.predict``).
        batch_size: of the pass over the data, which encodes every modality once.
    """
    orders = sampled_orders(model.modalities)
    sampled = [] if orders is None else map(model.select, coalitions(model.modalities, orders))
    names = list(dict.fromkeys([*subsets(model.modalities), *sampled]))
    right = dict.fromkeys(names, 0.0)
    device = next(model.parameters()).device
    with evaluation(model):
        for batch in batches(split, model.modalities, batch_size, device):
            encoded = model.encode(batch.inputs, None, batch.present)
            for subset in names:
                output = model.fuse({m: encoded[m] for m in subset}, batch.present)
                logits = output.logits if predict is None else predict(output, model)
                correct = model.task.hits(logits, batch.target)
                if batch.present is not None and all(m in batch.present for m in subset):
                    correct = correct * torch.stack([batch.present[m] for m in subset]).any(0)
                right[subset] += float(correct.sum())
    return {subset_name(subset): count / len(split) for subset, count in right.items()}


def contributions(scores: Mapping[str, float], modalities: Sequence[str], nothing: float = 0.0) -> dict[str, float]:
    """The Shapley value of each modality in a score: its mean gain over all orders of joining.

    The values add up to the score of all modalities minus ``nothing``. With more than ``LATTICE`` modalities the mean
    is over sampled orders (``functional.sampled_orders``).

    Args:
        scores: ``"audio+image"`` (any order) -> score, as of ``subset_hits``.
        modalities: the players.
        nothing: the score without any modality; for ``subset_hits`` ``Task.chance(target)``.

    Raises:
        ValueError: when a subset is missing.
    """
    values = {frozenset(name.split("+")): torch.tensor(v, dtype=torch.float64) for name, v in scores.items()}
    values[frozenset()] = torch.tensor(nothing, dtype=torch.float64)
    return {m: float(share) for m, share in shapley(values, modalities, sampled_orders(modalities)).items()}


# -- gradients -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class GradientBalance:
    """Gradients of each modality, one row per batch.

    Attributes:
        modalities: names, in order (M).
        magnitude: (batches, M) length of the fused loss's gradient by the modality's own parameters.
        relative: (batches, M) the same divided by the length of those parameters.
        alignment: (batches, M) cosine between the fused loss's and the modality's own loss's gradient by its own
            parameters; negative means that what helps the fused prediction hurts the modality alone. nan where
            one of them is zero.
        conflict: (batches, M, M) cosine between the gradients of two modalities' own losses by the parameters all
            share (a shared head); negative is a conflict. nan where nothing, or no more than a bias, is shared.
    """

    modalities: tuple[str, ...]
    magnitude: np.ndarray
    relative: np.ndarray
    alignment: np.ndarray
    conflict: np.ndarray


def gradient_balance(
    model: MultimodalModel,
    split: Split,
    *,
    batch_size: int = 64,
    most: int | None = None,
    seed: int = 0,
    predict: Predict | None = None,
    criterion: Criterion | None = None,
    counts: Counts | None = None,
    only: Collection[str] | None = None,
) -> GradientBalance:
    """How strongly, and in what direction, the data move each modality's parameters at the present weights.

    Evaluation mode, no augmentation; ``.grad`` is left alone. Only trainable parameters count.

    Args:
        model: a model, trained or in training.
        split: whose samples, in an order drawn from ``seed``.
        batch_size: of a batch.
        most: batches to look at; None for all.
        seed: of the order.
        predict: the fused logits of an output, where a method has a rule of its own (``Method.predict``).
        criterion: (logits, target) -> (batch,) losses; the task's own by default.
        counts: how much each sample counts in the mean; all alike by default.
        only: the modalities to read and measure; None for all.
    """
    criterion = criterion or model.task.losses
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    order = order if most is None else order[: whole("most", most, low=1) * batch_size]
    device = next(model.parameters()).device
    names = model.select(only)
    own = {m: [p for p in model.parameters_of(m) if p.requires_grad] for m in names}
    shared = [p for p in model.shared_parameters() if p.requires_grad]
    if all(p.ndim < 2 for p in shared):  # a bias that every class score gets carries no features
        shared = []
    rows = []
    with evaluation(model), torch.enable_grad():
        for batch in batches(split, names, batch_size, device, order):
            output = model(batch.inputs, names, batch.present)
            logits = output.logits if predict is None else predict(output, model)
            weights = None if counts is None else counts(batch.target, batch.weight)
            fused = masked_mean(criterion(logits, batch.target), weights)
            by_fused, by_own, by_shared = {}, {}, {}
            for m in names:
                alone = output.unimodal[m] if predict is None else predict(output.alone(m), model)
                there = None if batch.present is None else batch.present.get(m)
                own_weights = weights if there is None else there if weights is None else weights * there
                loss = masked_mean(criterion(alone, batch.target), own_weights)
                by_fused[m], by_own[m] = _grad(fused, own[m]), _grad(loss, own[m])
                by_shared[m] = _grad(loss, shared)
            lengths = torch.stack([_norm(by_fused[m]) for m in names])
            weights = torch.stack([_norm(own[m]) for m in names])
            angles = torch.stack([_cosine(by_fused[m], by_own[m]) for m in names])
            pairs = torch.stack([_cosine(by_shared[a], by_shared[b]) for a in names for b in names])
            rows.append((lengths, lengths / weights, angles, pairs.view(len(own), len(own))))
    return GradientBalance(names, *(torch.stack(column).double().numpy() for column in zip(*rows, strict=True)))


def _grad(loss: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    if not params:
        return []
    return list(torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True, materialize_grads=True))


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return global_norm([t.detach() for t in tensors]).cpu() if tensors else torch.zeros(())


def _cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The cosine, nan where one of them is zero or nothing is there."""
    if not a:
        return torch.tensor(torch.nan)
    there = (global_norm(a) > 0) & (global_norm(b) > 0)
    return torch.where(there, cosine(a, b), torch.nan).cpu()


# -- curves --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Overfitting:
    """How a learner generalises over the epochs, against its first one.

    Attributes:
        overfitting: (epochs - 1,) growth of the gap between validation and training loss.
        gain: (epochs - 1,) fall of the validation loss.
        ratio: (epochs - 1,) size of the ratio of the two; large means it learns what does not generalise.
    """

    overfitting: np.ndarray
    gain: np.ndarray
    ratio: np.ndarray


def overfitting_ratio(train: Sequence[float], val: Sequence[float]) -> Overfitting:
    """Overfitting-to-generalisation ratio of every epoch against the first (Wang et al., CVPR 2020).

    Args:
        train: (epochs,) mean training loss of one modality's prediction, at least two.
        val: (epochs,) mean validation loss of it.
    """
    if len(train) != len(val) or len(train) < 2:
        raise ValueError(f"train and val must be curves of one length, at least 2; got {len(train)} and {len(val)}.")
    t, v = (torch.tensor(list(curve), dtype=torch.float64) for curve in (train, val))
    return Overfitting(*(part.numpy() for part in overfitting_to_generalization(t[0], v[0], t[1:], v[1:])))
