"""DOMFN: which samples are fit for fusion, and their loss."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise._checks import choice

REFERENCES = ("mean", "fused")
CLOSED = ("ce", "penalised")


def divergence(scores: Tensor, fused: Tensor, reference: str = "mean", present: Tensor | None = None) -> Tensor:
    r"""How far each modality's class scores are from a reference.

    .. math:: d_{m,i} = \max_c (q_{m,i,c} - r_{i,c})^2

    Args:
        scores: (modalities, batch, classes), probabilities of each modality.
        fused: (batch, classes), probabilities of the fused head.
        reference: "mean" of the modalities that the sample has, or "fused".
        present: (modalities, batch) bool; an absent modality diverges by 0.

    Returns:
        (modalities, batch); at most ((M-1)/M)^2 with the mean as reference, at most 1 with the fused head.

    Source: Yang et al., DOMFN, ACM Multimedia 2022, https://doi.org/10.1145/3503161.3548203
    """
    choice("reference", reference, REFERENCES)
    there = torch.ones_like(scores[..., 0]) if present is None else present.to(scores.dtype)
    if reference == "mean":
        r = (scores * there.unsqueeze(-1)).sum(0) / there.sum(0).clamp(min=1).unsqueeze(-1)
    else:
        r = fused
    return (scores - r).square().amax(-1) * there


def fusion_gate(divergences: Tensor, threshold: float) -> Tensor:
    """(batch,) bool: every modality of the sample is closer to the reference than ``threshold``."""
    return (divergences < threshold).all(0)


def gated_losses(
    unimodal: Tensor, fused: Tensor, divergences: Tensor, gate: Tensor, eta: float = 0.5, closed: str = "ce"
) -> Tensor:
    r"""The loss of each sample.

    .. math:: L_i = \begin{cases}
              \sum_m (\tfrac12 \ell_m^2 - \eta d_m) + \sum_m \ell_m + \ell_f & \text{gate open} \\
              \sum_m \ell_m & \text{gate closed}\end{cases}

    Args:
        unimodal: (modalities, batch) cross-entropies, 0 where the sample lacks the modality.
        fused: (batch,) cross-entropy of the fused head.
        divergences: (modalities, batch).
        gate: (batch,) bool.
        eta: weight of the divergence.
        closed: "ce" as above, or "penalised": :math:`\sum_m (\tfrac12 \ell_m^2 - \eta d_m)` where the gate
            is closed.

    Returns:
        (batch,).
    """
    choice("closed_gate", closed, CLOSED)
    plain = unimodal.sum(0)
    penalised = (unimodal.square() / 2 - eta * divergences).sum(0)
    return torch.where(gate, penalised + plain + fused, plain if closed == "ce" else penalised)
