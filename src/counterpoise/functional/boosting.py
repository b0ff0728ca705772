"""ReconBoost's two losses and its timetable: pure functions.

Shapes: ``batch`` samples, ``classes`` classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

LOG_FLOOR = -10.0
"""Where the residual form stops pushing the probability of a wrong class down: e^-10."""


def boost_loss(
    logits: Tensor, others: Tensor, target: Tensor, *, w1: float = 5.0, w2: float = 1.0, form: str = "target"
) -> Tensor:
    r"""What one modality minimises against the ensemble of the others, per sample.

    With p = softmax(logits), q = softmax(others) held constant and C classes,

    .. math:: \text{residual:}\quad -\tfrac1C \sum_k (w_1 y_k - w_2 q_k) \log p_k
        = \tfrac{w_1}{C}\bigl[\mathrm{CE}(y, p) - \lambda\,\mathrm{KL}(q\,\|\,p) - \lambda H(q)\bigr],
        \qquad \lambda = w_2 / w_1

    .. math:: \text{target:}\quad -\tfrac1C (w_1 - w_2 q_y) \log p_y

    The residual form has no lower bound, so log p is held at ``LOG_FLOOR`` in the entries off the
    target; above the floor it is exact. The target form keeps the entry k = y of the sum only and is
    bounded by 0 when w1 >= w2.

    Args:
        logits: (batch, classes), what the modality in training says.
        others: (batch, classes), the summed logits of the others; no gradient reaches them.
        target: (batch,) class numbers.
        w1: weight of the label.
        w2: weight of what the ensemble already says.
        form: "target" or "residual".

    Returns:
        (batch,) losses.
    """
    log_p = logits.log_softmax(1)
    q = others.detach().softmax(1)
    y = target.unsqueeze(1)
    on_target = (w1 - w2 * q.gather(1, y)) * log_p.gather(1, y)
    if form == "target":
        return -on_target.squeeze(1) / logits.shape[1]
    off_target = (q * log_p.clamp(min=LOG_FLOOR)).scatter(1, y, 0.0).sum(1)
    return (w2 * off_target - on_target.squeeze(1)) / logits.shape[1]


def consolidation_loss(logits: Tensor, previous: Tensor) -> Tensor:
    """Mean squared difference of the predictions of this learner and of the one updated before it.

    Args:
        logits: (batch, classes), the learner in training.
        previous: (batch, classes), its predecessor; no gradient reaches it.

    Returns:
        (batch,) losses in [0, 2 / classes].
    """
    return F.mse_loss(logits.softmax(1), previous.detach().softmax(1), reduction="none").mean(1)


class Stage(NamedTuple):
    """One turn of the boosting: epochs on one modality, then epochs on all of them."""

    boost: int
    rectify: int


def boosting_stages(epochs: int, modalities: int, boost: int, rectify: int) -> list[Stage]:
    """A timetable that uses up exactly ``epochs``.

    As many stages of ``boost + rectify`` epochs as fit; what is left over lengthens the joint phase of
    some (the alternating one when there is no joint phase). When less than one such stage per modality
    fits, every modality still gets its turn and the stages are shortened, in proportion, instead.

    Args:
        epochs: the budget, at least 1.
        modalities: how many take turns.
        boost: epochs of each alternating phase, at least 1.
        rectify: epochs of each joint phase, at least 0.

    Returns:
        Stages, each with at least one boosting epoch; fewer than ``modalities`` only when ``epochs`` is.
    """
    count = min(epochs, max(modalities, epochs // (boost + rectify)))
    stages = []
    for i in range(count):
        length = (i + 1) * epochs // count - i * epochs // count
        short = length < boost + rectify
        alone = length if rectify == 0 else max(1, length * boost // (boost + rectify)) if short else boost
        stages.append(Stage(alone, length - alone))
    return stages
