"""Bringing the features of two modalities, or of a student and its teacher, together."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.cosines import unit_rows


def info_nce(a: Tensor, b: Tensor, tau: float = 0.07, present: Tensor | None = None) -> Tensor:
    r"""Symmetric InfoNCE: each sample must recognise its own other view among the batch.

    .. math:: -\frac{1}{2B} \sum_i \Big[\log \mathrm{softmax}_k(s_{ik} / \tau)_i
              + \log \mathrm{softmax}_k(s_{ki} / \tau)_i\Big], \qquad s_{ik} = \cos(a_i, b_k)

    Args:
        a: (batch, dim) features.
        b: (batch, dim) features of the same samples, same width.
        tau: temperature, > 0.
        present: (batch,) bool; samples that lack one of the views neither ask nor answer.

    Returns:
        A scalar, at least 0; 0 when no sample takes part. A feature of zeros is at right angles to all others.

    Source: Yang et al., Facilitating multimodal classification via dynamically learning modality gap,
    NeurIPS 2024,
    https://papers.nips.cc/paper_files/paper/2024/hash/71b17f00017da0d73823ccf7fbce2d4f-Abstract-Conference.html
    """
    number("tau", tau, above=0)
    s = unit_rows(a) @ unit_rows(b).T / tau
    if present is None:
        return -(s.log_softmax(1).diagonal() + s.log_softmax(0).diagonal()).mean() / 2
    # finite, so that a batch in which nobody takes part has gradient 0 and not NaN
    out = ~(present[:, None] & present[None, :])
    s = s.masked_fill(out, -1e9)
    both = s.log_softmax(1).diagonal() + s.log_softmax(0).diagonal()
    return -torch.where(present, both, 0.0).sum() / (2 * present.sum().clamp(min=1))


def gap_weight(t: int) -> float:
    r"""LFM's schedule :math:`\alpha_t = 1 - e^{-1/t}` for epoch ``t``, counted from 1."""
    number("t", t, low=1)
    return -math.expm1(-1 / t)


def look_ahead(
    alpha: Tensor, alignment: Tensor, classification: Tensor, held: Tensor, rate: float, low: float, high: float
) -> Tensor:
    r"""One descent step of LFM's weight on the held-out loss one training step ahead.

    With :math:`\theta' = \theta - \eta((1-\alpha) g_C + \alpha g_M)` the derivative of the held-out loss is
    :math:`-\eta \langle g_M - g_C, g_V \rangle`, so

    .. math:: \alpha \leftarrow \mathrm{clip}(\alpha + \eta_\alpha \langle g_M - g_C, g_V\rangle)

    Args:
        alpha: the weight, 0-d.
        alignment: :math:`g_M`, (n,).
        classification: :math:`g_C`, (n,).
        held: :math:`g_V`, (n,), gradient of the classification loss on held-out samples.
        rate: :math:`\eta_\alpha`, which absorbs :math:`\eta`.
        low: least weight.
        high: largest weight.
    """
    return (alpha + rate * ((alignment - classification) @ held)).clamp(low, high)


def feature_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """(batch,) mean squared difference of each sample's features; no gradient reaches the teacher."""
    return (student - teacher.detach()).square().mean(1)


def distillation_losses(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r"""(batch,) :math:`\tau^2\, \mathrm{KL}(\mathrm{softmax}(t / \tau) \,\|\, \mathrm{softmax}(f / \tau))`.

    The factor keeps the gradient of one size, whatever :math:`\tau`.

    Args:
        student: (batch, classes) logits f.
        teacher: (batch, classes) logits t, to which no gradient flows.
        temperature: :math:`\tau` > 0.

    Source: Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015,
    https://arxiv.org/abs/1503.02531
    """
    told = (teacher.detach() / temperature).log_softmax(1)
    return temperature**2 * (told.exp() * (told - (student / temperature).log_softmax(1))).sum(1)


def label_distillation_losses(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r"""(batch,) the same of labels: the mean over them of :math:`\tau^2\, \mathrm{KL}` of yes or no.

    .. math:: \frac{\tau^2}{L} \sum_l q_l \log \frac{q_l}{p_l} + (1 - q_l) \log \frac{1 - q_l}{1 - p_l}, \qquad
              q = \sigma(t / \tau), \ p = \sigma(f / \tau)

    Args:
        student: (batch, labels) logits f.
        teacher: (batch, labels) logits t, to which no gradient flows.
        temperature: :math:`\tau` > 0.
    """
    u, v = student / temperature, teacher.detach() / temperature
    q = v.sigmoid()
    yes, no = q * (F.logsigmoid(v) - F.logsigmoid(u)), (1 - q) * (F.logsigmoid(-v) - F.logsigmoid(-u))
    return temperature**2 * (yes + no).mean(1)
