"""Data Remixing: which modality of a sample is shown alone, and batches of samples that show the same one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoise.functional.entropy import class_certainty


def bits_from_uniform(logits: Tensor) -> Tensor:
    r""":math:`D = \sum_c p_c \log_2(C p_c)`, how far predictions are from knowing nothing, in [0, log2 C] bits.

    Args:
        logits: (..., classes).

    Returns:
        (...).

    Source: Ma et al., Improving Multimodal Learning Balance and Sufficiency through Data Remixing, ICML 2025,
    https://arxiv.org/abs/2506.11550
    """
    # in order of size, so that predictions that differ in the class alone are equal to the last bit
    return class_certainty(logits.sort(-1).values) / math.log(2) + math.log2(logits.shape[-1])


def least_separating(bits: Tensor, present: Tensor | None = None) -> Tensor:
    """(samples,) number of the modality with the fewest bits among those that a sample has, the first of equal ones.

    Args:
        bits: (modalities, samples).
        present: (modalities, samples) bool; None where every sample has every modality.
    """
    return (bits if present is None else bits.where(present, torch.inf)).argmin(0)


def remixed_rows(
    shown: Tensor, batch_size: int, generator: torch.Generator, *, blocks: bool = False, mixed: bool = False
) -> Tensor:
    """Samples in an order in which consecutive batches show one modality, each sample at most once.

    Every group of samples that show the same modality is shuffled and cut into whole batches; what fills none is left
    out. A group smaller than a batch would never be shown: such groups come last, in batches that others fill up.

    Args:
        shown: (samples,) number of the modality that each shows.
        batch_size: samples of a batch.
        generator: of the order, on the CPU.
        blocks: all batches of the first modality, then those of the second, and so on; otherwise in random order.
        mixed: append what would be left out.
    """
    pure, rest, small = [], [], []
    for group in shown.unique().tolist():
        rows = _shuffled((shown == group).nonzero().flatten(), generator)
        whole = len(rows) // batch_size * batch_size
        pure.extend(rows[:whole].split(batch_size) if whole else ())
        (rest if whole else small).append(rows[whole:])
    if not blocks:
        pure = [pure[i] for i in torch.randperm(len(pure), generator=generator).tolist()]
    last, others = torch.cat([shown[:0], *small]), _shuffled(torch.cat([shown[:0], *rest]), generator)
    wanted = -(-len(last) // batch_size) * batch_size
    if len(last) + len(others) < wanted and pure:
        others = torch.cat([others, pure.pop()])
    filled = _shuffled(torch.cat([last, others[: wanted - len(last)]]), generator)
    return torch.cat([*pure, filled, others[wanted - len(last) :] if mixed else others[:0]])


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]
