"""ReLearning: how much better a modality's features separate the classes on seen than on unseen samples."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor


def scaled(features: Tensor) -> Tensor:
    """Every column of (samples, dim) between -1 and 1, by its least and largest value; 0 where it is constant."""
    low, high = features.amin(0), features.amax(0)
    spread = high - low
    return torch.where(spread > 0, 2 * (features - low) / torch.where(spread > 0, spread, 1.0) - 1, 0.0)


def k_means(features: Tensor, clusters: int, seed: int) -> Tensor:
    """(samples,) cluster numbers, the best of ten k-means from k-means++ starts.

    Args:
        features: (samples, dim), at least as many samples as clusters.
        clusters: how many.
        seed: of the starts, from 0.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than clusters
        best = KMeans(clusters, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
        return torch.from_numpy(best.fit_predict(features.cpu().double().numpy())).long()


def purity(clusters: Tensor, labels: Tensor) -> float:
    """Share of samples whose label is the most frequent one of their cluster, in [largest class share, 1].

    Args:
        clusters: (samples,) cluster numbers from 0, at least one sample.
        labels: (samples,) class numbers from 0.
    """
    width = int(labels.max()) + 1
    counts = torch.bincount(clusters * width + labels, minlength=(int(clusters.max()) + 1) * width)
    return float(counts.reshape(-1, width).amax(1).sum()) / len(labels)


def return_share(seen: float, unseen: float, lam: float) -> float:
    r"""How far an encoder goes back: :math:`\tanh(\lambda |P_{seen} - P_{unseen}|)`, in [0, 1].

    Args:
        seen: purity on training samples.
        unseen: purity on held-out samples.
        lam: :math:`\lambda`, at least 0.

    Source: Wei et al., Diagnosing and Re-learning for Balanced Multimodal Learning, ECCV 2024,
    https://arxiv.org/abs/2407.09705
    """
    return math.tanh(lam * abs(seen - unseen))
