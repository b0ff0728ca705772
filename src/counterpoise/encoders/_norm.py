"""Batch normalisation that survives a batch of one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def _alone(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor) -> bool:
    """One value per channel has no variance: when a modality is absent from all samples but one."""
    return norm.training and x.numel() == x.shape[1] and norm.running_mean is not None


def _as_in_evaluation(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class BatchNorm1d(nn.BatchNorm1d):
    """``nn.BatchNorm1d``, which uses its running statistics for a batch of one."""

    def forward(self, input: Tensor) -> Tensor:
        return _as_in_evaluation(self, input) if _alone(self, input) else super().forward(input)


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d``, which uses its running statistics for a single value per channel."""

    def forward(self, input: Tensor) -> Tensor:
        return _as_in_evaluation(self, input) if _alone(self, input) else super().forward(input)


class BatchNorm3d(nn.BatchNorm3d):
    """``nn.BatchNorm3d``, which uses its running statistics for a single value per channel."""

    def forward(self, input: Tensor) -> Tensor:
        return _as_in_evaluation(self, input) if _alone(self, input) else super().forward(input)
