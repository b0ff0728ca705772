"""Loss surfaces around a minimum, and the line between two, after Li et al. (2018).

Example::

    loss = SplitLoss(model, sample(data.train, 1000), "audio", statistics="recomputed")
    params = list(loss.parameters().values())
    surface = loss_surface(loss, params, filter_directions(params, seed=0), filter_directions(params, seed=1))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import number, whole
from counterpoise.analysis.objective import Loss, put, value, weights_kept

Progress = Callable[[int, int], None]
"""Called with (points done, points in all)."""


@dataclass(frozen=True)
class Surface:
    """A loss on a grid.

    Attributes:
        x: (nx,) steps along the first direction, in units of the filters' norms.
        y: (ny,) steps along the second direction.
        loss: (ny, nx).
        centre: the loss at the trained weights.
    """

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    centre: float

    @property
    def corners(self) -> np.ndarray:
        """(4,) how much higher the loss is at the corners of the grid than at the centre."""
        return self.loss[[0, 0, -1, -1], [0, -1, 0, -1]] - self.centre

    @property
    def rise(self) -> float:
        """Mean difference between the corners and the centre: the larger, the sharper the minimum."""
        return float(self.corners.mean())

    @property
    def line(self) -> np.ndarray:
        """(nx,) the loss along the first direction, through the trained weights.

        Raises:
            ValueError: when ``y`` has an even number of steps, as none of them is 0 then.
        """
        if len(self.y) % 2 == 0:
            raise ValueError(
                f"line: the grid has no row through the trained weights; make it with an odd number of points, "
                f"for example loss_surface(points={len(self.y) + 1}); got {len(self.y)}."
            )
        return self.loss[len(self.y) // 2]


@dataclass(frozen=True)
class Path:
    """A loss along a straight line between two sets of weights.

    Attributes:
        position: (n,) 0 at the start, 1 at the end.
        loss: (n,).
        accuracy: (n,) in [0, 1] on the same samples, for numbers the likelihood; empty where it was not asked for.
    """

    position: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def barrier(self) -> float:
        """How far the loss between the two sets rises above the straight line between their losses; at least 0."""
        inside = (self.position >= 0) & (self.position <= 1)
        start, end = np.interp([0.0, 1.0], self.position, self.loss)
        rise = self.loss[inside] - (start + (end - start) * self.position[inside])
        return float(max(rise.max(initial=0.0), 0.0))


def filter_directions(params: Sequence[Tensor], seed: int = 0, *, vectors: bool = False) -> list[Tensor]:
    r"""A random direction whose filters are as long as those of the weights.

    .. math:: d_{i} \leftarrow \frac{d_{i}}{\lVert d_{i} \rVert} \lVert w_{i} \rVert

    with d standard normal and i over the filters: what one output of a layer sees, ``weight[i]``. So two
    networks that differ in the scale of their weights only have the same surface.

    Args:
        params: the weights.
        seed: of the direction, which depends on nothing else than it and the shapes.
        vectors: also move what has no filters (biases, the scales and shifts of normalisation), each scaled
            as one filter. Otherwise its direction is zero, as in the paper.

    Returns:
        One tensor per parameter.

    Source: Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018, https://arxiv.org/abs/1712.09913
    """
    generator = torch.Generator().manual_seed(seed)
    directions = []
    for p in params:
        d = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        w = p.detach().cpu().double()
        if p.dim() < 2:
            scale = w.norm() / d.norm() if vectors else torch.zeros(())
        else:
            scale = w.flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
            scale = scale.view(-1, *[1] * (p.dim() - 1))
        directions.append((d * scale).to(p.dtype).to(p.device))
    return directions


def loss_surface(
    loss: Loss,
    params: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    *,
    radius: float = 0.7,
    points: int = 21,
    progress: Progress | None = None,
) -> Surface:
    r"""The loss :math:`L(\theta + x d_1 + y d_2)` on a square grid around the present weights.

    The weights come back bit for bit, also when something fails on the way.

    Args:
        loss: for example a ``SplitLoss``.
        params: :math:`\theta`.
        first: :math:`d_1`, one tensor per parameter, as ``filter_directions`` gives.
        second: :math:`d_2`.
        radius: the grid reaches from -radius to radius, > 0.
        points: of each side of the grid, at least 2; an odd number has the centre among them.
        progress: called after every point.
    """
    number("radius", radius, above=0)
    whole("points", points, low=2)
    steps = np.linspace(-radius, radius, points)
    table = np.empty((points, points))
    centre = value(loss)
    with weights_kept(params) as start:
        for count, (row, column) in enumerate(np.ndindex(points, points), start=1):
            put(params, _moved(start, (float(steps[column]), first), (float(steps[row]), second)))
            table[row, column] = value(loss)
            if progress is not None:
                progress(count, points * points)
    return Surface(steps, steps.copy(), table, centre)


def interpolate(
    loss: Loss,
    params: Sequence[Tensor],
    start: Sequence[Tensor],
    end: Sequence[Tensor],
    positions: Sequence[float] | np.ndarray | None = None,
    *,
    accuracy: Loss | None = None,
    progress: Progress | None = None,
) -> Path:
    r"""The loss :math:`L((1 - a)\,\theta_0 + a\,\theta_1)` on the line between two sets of weights.

    Running statistics belong to one set of weights only, so give a ``SplitLoss(statistics="recomputed")``
    for models with batch normalisation.

    Args:
        loss: for example a ``SplitLoss``.
        params: where the weights are written; they come back bit for bit.
        start: :math:`\theta_0`, one tensor per parameter.
        end: :math:`\theta_1`.
        positions: the a, increasing; None for 25 from -0.5 to 1.5.
        accuracy: measured at the same points, for example a ``SplitLoss(criterion=model.task.hits)``.
        progress: called after every point.
    """
    places = np.linspace(-0.5, 1.5, 25) if positions is None else np.asarray(positions, dtype=float)
    if places.ndim != 1 or len(places) < 2 or not (np.diff(places) > 0).all():
        raise ValueError(f"positions must be at least two increasing numbers; got {places.tolist()}.")
    losses, shares = np.empty(len(places)), np.empty(0 if accuracy is None else len(places))
    with weights_kept(params):
        for i, a in enumerate(places):
            put(params, [torch.lerp(s, e, float(a)) for s, e in zip(start, end, strict=True)])
            losses[i] = value(loss)
            if accuracy is not None:
                shares[i] = value(accuracy)
            if progress is not None:
                progress(i + 1, len(places))
    return Path(places, losses, shares)


def _moved(start: Sequence[Tensor], *moves: tuple[float, Sequence[Tensor]]) -> list[Tensor]:
    """``start`` plus steps along directions."""
    moved = list(start)
    for step, direction in moves:
        moved = [w + step * d for w, d in zip(moved, direction, strict=True)]
    return moved
