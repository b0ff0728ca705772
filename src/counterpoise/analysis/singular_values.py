"""The spectrum of what enters a layer: how many directions a modality uses, and how strongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from counterpoise.analysis.objective import batches, evaluation
from counterpoise.data.split import Split
from counterpoise.functional.spectrum import collect_inputs, is_supported
from counterpoise.model import MultimodalModel


@dataclass(frozen=True)
class LayerSpectrum:
    """Singular values of the second moment of one layer's inputs.

    Attributes:
        values: (d,) largest first, those of all groups of a grouped convolution together.
        samples: how many inputs were seen.
        batches: in how many batches.
    """

    values: np.ndarray
    samples: int
    batches: int

    @property
    def mean(self) -> float:
        """Mean singular value, trace / d."""
        return float(self.values.mean())

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the normalised spectrum: 1 for one direction, d for equal ones."""
        share = self.values / self.values.sum() if self.values.sum() > 0 else np.full_like(self.values, np.nan)
        share = share[share != 0]
        return float(np.exp(-(share * np.log(share)).sum()))


def head_layers(model: MultimodalModel, modality: str) -> dict[str, nn.Module]:
    """The layers of the head of a modality, from its input to the logits, named by their sizes: ``"512x256"``.

    Layers of equal sizes get a number: ``"64x64 (2)"``.

    Raises:
        ValueError: when the fusion has no head per modality.
    """
    layers: dict[str, nn.Module] = {}
    for layer in model.head_of(modality).modules():
        if is_supported(layer):
            base = name = f"{layer.weight[0].numel()}x{len(layer.weight)}"
            count = 1
            while name in layers:
                count += 1
                name = f"{base} ({count})"
            layers[name] = layer
    return layers


def input_spectra(
    model: MultimodalModel,
    split: Split,
    modality: str,
    *,
    layers: Mapping[str, nn.Module] | None = None,
    statistic: str = "batch_mean",
    batch_size: int = 64,
    seed: int | None = 0,
) -> dict[str, LayerSpectrum]:
    r"""Singular values of :math:`Y = \sum_t \bar a_t \bar a_t^\top` for each layer of a modality's head.

    One pass over the samples that have the modality, in evaluation mode and without augmentation. Y is
    neither centred nor divided by the number of batches, as in the paper, so it grows with the number of
    batches: compare models on the same split with the same batch size.

    Args:
        model: a trained model.
        split: whose samples; the training split, for IGM's statistic.
        modality: whose inputs.
        layers: your names -> layers to look at instead of ``head_layers(model, modality)``.
        statistic: ``"batch_mean"`` as above, or ``"sample"``: every input instead of the batch means.
        batch_size: of the batches; an incomplete last one is left out unless it is the only one.
        seed: of the order of the samples; None for the split's own.

    Returns:
        Layer -> its spectrum.
    """
    layers = head_layers(model, modality) if layers is None else layers
    rows = torch.arange(len(split))
    if split.present is not None and modality in split.present:
        rows = split.present[modality].nonzero().flatten()
    if not len(rows):
        raise ValueError(f"split: no sample has {modality!r}.")
    if seed is not None:
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    if len(rows) > batch_size:
        rows = rows[: len(rows) // batch_size * batch_size]
    device = next(model.parameters()).device
    with torch.no_grad(), evaluation(model), collect_inputs(layers, statistic) as moments:
        for batch in batches(split, (modality,), batch_size, device, rows):
            model(batch.inputs, (modality,))
    spectra = {}
    for name, moment in moments.items():
        values = torch.linalg.eigvalsh((moment + moment.mT) / 2).clamp_min(0.0).flatten()
        ordered = values.sort(descending=True).values.cpu().numpy()
        spectra[name] = LayerSpectrum(ordered, len(rows), moments.batches[name])
    return spectra
