"""What a frozen encoder knows: the score of a linear prediction from its features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise._extras import require
from counterpoise.analysis.objective import batches, evaluation
from counterpoise.data.split import Split
from counterpoise.model import MultimodalModel
from counterpoise.task import Regression, SingleLabel, Task


@dataclass(frozen=True)
class Probe:
    """A linear probe of one modality.

    Attributes:
        score: mean of ``hits``; for classes the accuracy.
        train_score: the same on the samples it was fitted to.
        samples: test samples that have the modality.
        hits: (samples,) in [0, 1], how far each of them is right (``Task.hits``).
    """

    score: float
    train_score: float
    samples: int
    hits: np.ndarray = field(compare=False)


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


def linear_probe(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], penalty: float = 1.0, *, task: Task | None = None
) -> Probe:
    """Fit a linear prediction (ridge, with an intercept that is not penalised) on some features, score it on others.

    Least squares on the classes, on yes or no for each label, or on standardised numbers.

    Every feature is shifted and scaled to mean 0 and variance 1 on the training samples first, so that the
    penalty means the same for every encoder; features that never change count for nothing.

    Args:
        train: features (n, d) and targets as the task has them.
        test: the same, of other samples.
        penalty: on the squared weights, at least 0.
        task: what is predicted; None for classes.

    Raises:
        ValueError: when either part is empty.
    """
    number("penalty", penalty, low=0)
    if not len(train[1]) or not len(test[1]):
        raise ValueError(f"A probe needs samples to fit and to score; got {len(train[1])} and {len(test[1])}.")
    require("A linear probe", "sklearn")
    from sklearn.linear_model import Ridge, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (x_test, y_test) = ((inputs.double().numpy(), target) for inputs, target in (train, test))
    if task is None or isinstance(task, SingleLabel):
        classifier = make_pipeline(StandardScaler(), RidgeClassifier(penalty)).fit(x, y.numpy())
        known, hits = classifier.predict(x) == y.numpy(), classifier.predict(x_test) == y_test.numpy()
    else:
        wanted = task.standardised(y) if isinstance(task, Regression) else 2 * y - 1
        line = make_pipeline(StandardScaler(), Ridge(penalty)).fit(x, wanted.double().numpy())
        outputs = (torch.from_numpy(line.predict(part)).view(len(part), -1) for part in (x, x_test))
        known, hits = (task.hits(o, target).numpy() for o, target in zip(outputs, (y, y_test), strict=True))
    return Probe(float(hits.mean()), float(known.mean()), len(y_test), hits)
