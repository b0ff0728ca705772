r"""Directions that another modality's data leave flat, and gradients kept to them (IGM, and MLA's projection).

A layer with weight W of shape (out, d) maps inputs a in R^d. A change of W along a direction that the
inputs of modality k hardly use hardly changes what W does for k. So IGM collects the second moment Y
of k's inputs, turns it into a symmetric matrix T that shrinks the much used directions, and multiplies
the gradient of the same layer of another modality by T on the input side::

    with collect_inputs({"fc": audio.fc}) as moments:      # any number of forward passes
        for x in loader:
            audio(x)
    T = flat_directions(moments["fc"], tau=0.4)
    video.fc.weight.grad = project_inputs(video.fc.weight.grad, T)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoise._checks import choice, number
from counterpoise.functional import precision

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
STATISTICS = ("batch_mean", "sample")
_FEW = 0.5  # of d; up to about there the n × n eigenvectors and the products are quicker than the d × d ones


def is_supported(layer: nn.Module) -> TypeGuard[Layer]:
    """Whether the inputs of this kind of layer can be collected: linear and ordinary convolutions."""
    return isinstance(layer, Layer)


def input_shape(layer: nn.Module) -> tuple[int, ...]:
    """Shape of the layer's second moment: (d, d), or (groups, d, d) for a grouped convolution.

    d is the number of inputs one output sees: ``in_features``, or channels per group times kernel size.

    Raises:
        TypeError: for layers other than ``Linear``, ``Conv1d``, ``Conv2d`` and ``Conv3d``.
    """
    if not is_supported(layer):
        raise TypeError(
            f"layer must be Linear, Conv1d, Conv2d or Conv3d; got {type(layer).__name__}. Leave it out of the scope."
        )
    d = layer.weight[0].numel()
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    return (d, d) if groups == 1 else (groups, d, d)


def input_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """What one output of the layer sees, as rows: (samples, positions, d) or (samples, groups, positions, d).

    A linear layer on (batch, d) has one position. Convolutions see their unfolded input, with stride,
    dilation and padding, in the order of ``weight.flatten(1)``.
    """
    shape = input_shape(layer)
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1])
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    spatial = len(layer.kernel_size)
    x = x if x.dim() == spatial + 2 else x.unsqueeze(0)
    x = F.pad(x, _padding(layer), mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    for axis, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
    # (batch, channels, *positions, *kernel) -> (batch, groups, positions, channels per group * kernel)
    x = x.flatten(2, 1 + spatial).unflatten(1, (layer.groups, -1))
    x = x.transpose(2, 3).flatten(3)
    return x if len(shape) == 3 else x.squeeze(1)


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """The argument of ``F.pad``, last axis first."""
    pads: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            pads += [total // 2, total - total // 2]
        elif layer.padding == "valid":
            pads += [0, 0]
        else:
            pads += [int(layer.padding[axis])] * 2
    return pads


def second_moment(rows: Tensor, statistic: str = "batch_mean") -> Tensor:
    r"""The second moment of one batch, in float64.

    ``"batch_mean"`` averages over the samples first, :math:`\bar a = \frac1B \sum_i a_i`, and gives
    :math:`\bar a \bar a^\top` (summed over the positions); ``"sample"`` gives :math:`\sum_i a_i a_i^\top`.
    Neither is centred.

    Args:
        rows: (samples, positions, d) or (samples, groups, positions, d), as ``input_rows`` gives.
        statistic: "batch_mean" or "sample".

    Returns:
        (d, d) or (groups, d, d).
    """
    rows = _summed(rows, statistic)
    return rows.mT @ rows


def _summed(rows: Tensor, statistic: str) -> Tensor:
    """(..., n, d) in float64: the vectors whose outer products the second moment sums up."""
    if choice("statistic", statistic, STATISTICS) == "batch_mean":
        return _wide(rows).mean(0)
    return _wide(rows).movedim(0, -3).flatten(-3, -2)


class InputMoments(Mapping[str, Tensor]):
    """Second moments of the inputs of named layers; see ``collect_inputs``.

    Attributes:
        batches: layer name -> forward passes seen.
    """

    def __init__(self, layers: Mapping[str, nn.Module], statistic: str, mean: Callable[[Tensor], Tensor] | None = None):
        self.statistic, self._layers, self._mean = choice("statistic", statistic, STATISTICS), dict(layers), mean
        self.batches = dict.fromkeys(self._layers, 0)
        self._moments: dict[str, Tensor] = {}
        self._rows: dict[str, list[Tensor]] = {}  # instead, while they are few: each (..., n, d)
        self._shapes = {name: input_shape(layer) for name, layer in self._layers.items()}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._eager = ExitStack()

    def __enter__(self) -> InputMoments:
        if "torch._dynamo" in sys.modules:  # what was compiled before does not see hooks
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        self._handles = [
            layer.register_forward_pre_hook(self._hook(name), with_kwargs=True) for name, layer in self._layers.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._eager.close()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def see(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with torch.no_grad():
                self._add(name, layer, (args[0] if args else kwargs["input"]).detach())

        return see

    def _add(self, name: str, layer: nn.Module, x: Tensor) -> None:
        if len(x) == 0:
            return
        if self.statistic == "batch_mean":
            x = _reachable(x).mean(0, keepdim=True, dtype=torch.float64)  # unfolding is linear: the mean may come first
            x = x if self._mean is None else self._mean(x)
        rows = _summed(input_rows(layer, x), self.statistic)
        if name not in self._moments:
            kept = self._rows.setdefault(name, [])
            kept.append(rows)
            if sum(r.shape[-2] for r in kept) > _FEW * rows.shape[-1]:
                rows = torch.cat(self._rows.pop(name), -2)
        if name not in self._rows:
            self._moments[name] = self[name] + rows.mT @ rows
        self.batches[name] += 1

    def flat_directions(self, name: str, tau: float) -> Tensor:
        """The matrix T of a layer, as the function of this name gives it; by `thin_flat_directions` where quicker."""
        if name in self._rows:
            return thin_flat_directions(torch.cat(self._rows[name], -2), tau)
        return flat_directions(self[name], tau)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layers:
            raise KeyError(name)
        if name in self._moments:
            return self._moments[name]
        if name in self._rows:
            rows = torch.cat(self._rows[name], -2)
            return rows.mT @ rows
        return _wide(next(self._layers[name].parameters()).new_zeros(self._shapes[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def collect_inputs(
    layers: Mapping[str, nn.Module],
    statistic: str = "batch_mean",
    *,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> InputMoments:
    r"""Sum up the second moment of what enters these layers while the block runs.

    .. math:: Y = \sum_t \bar a_t \bar a_t^\top \quad\text{or}\quad Y = \sum_t \sum_i a_{ti} a_{ti}^\top

    over forward passes t, in float64, neither centred nor divided by their number (the matrix T does not
    depend on the scale). Whoever runs the forward passes decides on evaluation mode and ``no_grad``.
    Entering the block again goes on summing.

    Example::

        with torch.no_grad(), collect_inputs({"fc": net.fc}) as moments:
            for x, _ in loader:
                net(x)
        moments["fc"]            # (in_features, in_features)

    Args:
        layers: your names -> ``Linear`` or ``Conv`` modules.
        statistic: "batch_mean", the mean input of each batch (IGM), or "sample", every input.
        mean: averages a batch mean over processes, when each sees its share of the batch.

    Returns:
        A context manager and mapping, name -> (d, d), or (groups, d, d) for grouped convolutions.
    """
    return InputMoments(layers, statistic, mean)


def flat_directions(moment: Tensor, tau: float) -> Tensor:
    r"""The matrix that keeps a gradient to the directions in which ``moment`` is flat.

    .. math::
        T = V \operatorname{diag}(s) V^\top, \qquad
        s_i = \exp\!\Bigl(-\tau\,\frac{\lambda_i - \lambda_{min}}{\lambda_{max} - \lambda_{min}}\Bigr)

    with :math:`Y = V \operatorname{diag}(\lambda) V^\top`. Symmetric, spectrum in
    :math:`[e^{-\tau}, 1]`, unchanged when Y is scaled. Equal eigenvalues and tau = 0 give the identity.

    Args:
        moment: Y, (..., d, d), symmetric; eigenvalues that rounding made negative count as 0.
        tau: how strongly used directions shrink, at least 0.

    Returns:
        T, (..., d, d) in float64.

    Raises:
        ValueError: when Y is not square or holds NaN or infinity.

    Source: Jiang, Chi, Yang, IGM, IJCAI 2025, eq. 3 and 4.
    """
    number("tau", tau, low=0.0)
    if moment.dim() < 2 or moment.shape[-1] != moment.shape[-2]:
        raise ValueError(f"moment must have shape (..., d, d); got {tuple(moment.shape)}.")
    if not torch.isfinite(moment).all():
        raise ValueError("moment holds NaN or infinity: the inputs of the layer were not finite.")
    moment = _wide(moment)
    values, vectors = torch.linalg.eigh((moment + moment.mT) / 2)
    values = values.clamp_min(0.0)
    low, high = values[..., :1], values[..., -1:]
    # Differences at the level of rounding order nothing.
    equal = (high - low) <= high * 10 * values.shape[-1] * torch.finfo(values.dtype).eps
    ranks = (values - low) / torch.where(equal, 1.0, high - low)
    flat = (vectors * torch.exp(-tau * ranks).unsqueeze(-2)) @ vectors.mT
    identity = torch.eye(values.shape[-1], dtype=flat.dtype, device=flat.device)
    return torch.where(equal.unsqueeze(-1) | (tau == 0), identity, (flat + flat.mT) / 2)


def thin_flat_directions(rows: Tensor, tau: float) -> Tensor:
    r"""`flat_directions` of :math:`Y = R^\top R`, from the n < d vectors in R and without forming Y.

    The smallest eigenvalue of such a Y is 0, and the others are those of the n × n matrix
    :math:`R R^\top = U \operatorname{diag}(\lambda) U^\top`, so that

    .. math:: T = I + R^\top U \operatorname{diag}(c)\, U^\top R, \qquad
        c_i = \frac{e^{-\tau \lambda_i / \lambda_{max}} - 1}{\lambda_i}

    in :math:`O(n^3 + n d^2)` operations where the eigenvectors of Y take :math:`O(d^3)`. Nothing is left out: the two
    differ by rounding.

    Args:
        rows: R, (..., n, d) with n < d.
        tau: as for `flat_directions`.

    Returns:
        T, (..., d, d) in float64.

    Raises:
        ValueError: when n is not less than d, or R holds NaN or infinity.
    """
    number("tau", tau, low=0.0)
    if rows.dim() < 2 or rows.shape[-2] >= rows.shape[-1]:
        raise ValueError(f"rows must have shape (..., n, d) with n < d; got {tuple(rows.shape)}. Use flat_directions.")
    if not torch.isfinite(rows).all():
        raise ValueError("rows holds NaN or infinity: the inputs of the layer were not finite.")
    rows = _wide(rows)
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    values = values.clamp_min(0.0)
    high = torch.where(values[..., -1:] > 0, values[..., -1:], 1.0)  # all zero: R is, and T is the identity
    shrink = torch.where(values > 0, torch.expm1(-tau * values / high) / values, -tau / high)
    thin = vectors.mT @ rows
    flat = thin.mT @ (shrink.unsqueeze(-1) * thin)
    flat.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return (flat + flat.mT) / 2


def project_inputs(gradient: Tensor, T: Tensor) -> Tensor:
    """The gradient of a weight times T on its input side, in the gradient's shape and dtype.

    Args:
        gradient: (out, in) of a linear layer or (out, channels, ``*kernel``) of a convolution.
        T: (d, d), or (groups, d, d) for a grouped convolution.

    Raises:
        ValueError: when the sizes do not fit.
    """
    d, groups = T.shape[-1], math.prod(T.shape[:-2])
    if gradient[0].numel() != d or len(gradient) % groups:
        raise ValueError(f"T {tuple(T.shape)} does not fit a weight of shape {tuple(gradient.shape)}.")
    return (gradient.reshape(*T.shape[:-2], -1, d) @ T.to(gradient)).reshape(gradient.shape)


def rls_update(P: Tensor, r: Tensor, a: float) -> Tensor:
    r"""One step of recursive least squares: take direction ``r`` out of the projection ``P``.

    .. math:: P - \frac{P r\, r^\top P}{a + r^\top P r}

    With constant a, n steps from the identity give :math:`a (R R^\top + a I)^{-1}`, the stacked r in R.
    Stays symmetric and positive semidefinite; keep it in float64.

    Args:
        P: (d, d), symmetric.
        r: (d,), for MLA the mean feature of a batch.
        a: regularisation, > 0; smaller removes more.

    Source: Zhang et al., MLA, CVPR 2024, with the scalar denominator of the derivation.
    """
    number("a", a, above=0.0)
    k = P @ r.to(P)
    return P - torch.outer(k, k) / (a + r.to(P) @ k)


def _reachable(x: Tensor) -> Tensor:
    """``x`` where float64 exists: Apple's devices have none, so there it goes to the CPU."""
    return x.cpu() if x.device.type in precision.WITHOUT_FLOAT64 else x


def _wide(x: Tensor) -> Tensor:
    return _reachable(x).double()
