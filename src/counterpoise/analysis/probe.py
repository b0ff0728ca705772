"""What a frozen encoder knows: the accuracy of a linear classifier on its features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import choice, number
from counterpoise.analysis.objective import batches, evaluation
from counterpoise.data.split import Split
from counterpoise.model import MultimodalModel

KINDS = ("ridge", "logistic")


@dataclass(frozen=True)
class Probe:
    """A linear probe of one modality.

    Attributes:
        accuracy: on the test samples that have the modality, in [0, 1].
        train_accuracy: on the samples it was fitted to.
        samples: test samples that count.
        right: (samples,) which of them it gets right.
    """

    accuracy: float
    train_accuracy: float
    samples: int
    right: np.ndarray = field(compare=False)


@torch.no_grad()
def features(model: MultimodalModel, split: Split, modality: str, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Features (n, dim) and targets (n,) of the samples that have a modality, on the CPU, in evaluation mode."""
    rows = None
    if split.present is not None and modality in split.present:
        rows = split.present[modality].nonzero().flatten()
    device = next(model.parameters()).device
    parts, targets = [torch.empty(0, model.fusion.dims[modality])], [split.target[:0]]
    with evaluation(model):
        for batch in batches(split, (modality,), batch_size, device, rows):
            parts.append(model.encode(batch.inputs, (modality,))[modality].float().cpu())
            targets.append(batch.target.cpu())
    return torch.cat(parts), torch.cat(targets)


def ridge(x: Tensor, y: Tensor, classes: int, penalty: float = 1.0) -> Tensor:
    r"""Least squares on the classes as 0 and 1, in closed form, with an intercept that is not penalised.

    .. math:: \min_{W, b} \lVert X W + b - Y \rVert^2 + \alpha \lVert W \rVert^2

    Args:
        x: (n, d) features.
        y: (n,) class numbers.
        classes: how many there are.
        penalty: alpha, at least 0; 0 takes the shortest of the solutions.

    Returns:
        (d + 1, classes) float64, the intercept in the last row.
    """
    number("penalty", penalty, low=0)
    x, targets = x.double(), F.one_hot(y, classes).double()
    centre, level = x.mean(0), targets.mean(0)
    inputs, wanted = x - centre, targets - level
    if penalty == 0:
        weight = torch.linalg.pinv(inputs) @ wanted
    elif len(x) < x.shape[1]:  # the smaller of two equal systems
        gram = inputs @ inputs.T + penalty * torch.eye(len(x), dtype=x.dtype)
        weight = inputs.T @ torch.linalg.solve(gram, wanted)
    else:
        gram = inputs.T @ inputs + penalty * torch.eye(x.shape[1], dtype=x.dtype)
        weight = torch.linalg.solve(gram, inputs.T @ wanted)
    return torch.cat([weight, (level - centre @ weight).unsqueeze(0)])


def logistic(x: Tensor, y: Tensor, classes: int, penalty: float = 1.0, *, steps: int = 500) -> Tensor:
    r"""Multinomial logistic regression by L-BFGS, with an intercept that is not penalised.

    .. math:: \min_{W, b} \sum_i \mathrm{CE}(x_i W + b, y_i) + \tfrac{\alpha}{2} \lVert W \rVert^2

    Args:
        x: (n, d) features.
        y: (n,) class numbers.
        classes: how many there are.
        penalty: alpha, > 0, so that there is a minimum.
        steps: most iterations.

    Returns:
        (d + 1, classes) float64, the intercept in the last row.
    """
    number("penalty", penalty, above=0)
    rows = torch.cat([x.double(), x.new_ones(len(x), 1, dtype=torch.float64)], 1)
    weight = torch.zeros(rows.shape[1], classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight], max_iter=steps, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(rows @ weight, y) + penalty / (2 * len(y)) * weight[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return weight.detach()


def linear_probe(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, kind: str = "ridge", penalty: float = 1.0
) -> Probe:
    """Fit a linear classifier on some features, score it on others.

    Every feature is shifted and scaled to mean 0 and variance 1 on the training samples first, so that the
    penalty means the same for every encoder; features that never change count for nothing.

    Args:
        train: features (n, d) and class numbers (n,).
        test: the same, of other samples.
        classes: how many there are.
        kind: ``"ridge"`` (closed form) or ``"logistic"`` (L-BFGS).
        penalty: on the squared weights; at least 0 for ridge, > 0 for logistic.

    Raises:
        ValueError: when either part is empty.
    """
    (x, y), (x_test, y_test) = train, test
    fit = {"ridge": ridge, "logistic": logistic}[choice("kind", kind, KINDS)]
    if not len(y) or not len(y_test):
        raise ValueError(f"A probe needs samples to fit and to score; got {len(y)} and {len(y_test)}.")
    centre, spread = x.double().mean(0), x.double().std(0, correction=0)
    scale = torch.where(spread > 1e-12 * centre.abs().clamp_min(1e-6), 1 / spread, 0.0)
    standard, standard_test = ((part.double() - centre) * scale for part in (x, x_test))
    weight = fit(standard, y, classes, penalty)

    def right(inputs: Tensor, target: Tensor) -> Tensor:
        return (inputs @ weight[:-1] + weight[-1]).argmax(1) == target

    known, tested = right(standard, y), right(standard_test, y_test)
    return Probe(float(tested.double().mean()), float(known.double().mean()), len(y_test), tested.numpy())


def modality_probes(
    model: MultimodalModel,
    train: Split,
    test: Split,
    *,
    kind: str = "ridge",
    penalty: float = 1.0,
    batch_size: int = 256,
) -> dict[str, Probe]:
    """A linear probe on the frozen features of every modality of a model.

    Run it on models trained on one modality alone and on the joint one: where the probe of the joint model is
    worse, joint training starved that modality's encoder, whatever its head says.

    Args:
        model: a trained model.
        train: samples the probe learns from.
        test: samples it is scored on.
        kind: ``"ridge"`` or ``"logistic"``.
        penalty: on the squared weights.
        batch_size: of the passes over the data.
    """
    found = {}
    for m in model.modalities:
        parts = [features(model, split, m, batch_size=batch_size) for split in (train, test)]
        found[m] = linear_probe(parts[0], parts[1], model.num_classes, kind, penalty)
    return found
