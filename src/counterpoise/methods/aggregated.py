"""Aggregated: any aggregator of TorchJD on what the fused and the unimodal loss ask of an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean
from counterpoise._extras import require
from counterpoise.functional.gradients import assign, flatten
from counterpoise.method import Info
from counterpoise.methods._two_losses import TwoLosses

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class Aggregated(TwoLosses):
    r"""Multi-task training whose gradients are combined, per encoder, by an aggregator of TorchJD.

    .. math:: \text{encoder } m: \quad \mathcal{A}\begin{pmatrix} \nabla_{\theta_m} L \\ \nabla_{\theta_m} L_m
              \end{pmatrix}

    with the fused loss L and the modality's own :math:`L_m` as the rows of a Jacobian of two. Everything else takes
    the plain gradient of :math:`L + \sum_m L_m`. ``Sum`` is multi-task training, ``MGDA`` the shortest vector between
    the two; most others keep to the scale of a mean, half of a sum's. What an aggregator draws, it draws from the
    step's random numbers.

    Args:
        aggregator: name of a class of ``torchjd.aggregation``, with its default options; or one that is made, as
            ``CAGrad(c=0.4)``. Those that keep something between batches are refused: no checkpoint would hold it.

    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024,
    https://arxiv.org/abs/2406.16232
    """

    info = Info(
        family="gradient",
        summary="Combines, per encoder, the gradients of the fused and the unimodal loss by any aggregator of TorchJD.",
        paper="Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024",
        url="https://arxiv.org/abs/2406.16232",
        backward="2",
        fusions="any with heads=True",
    )

    def __init__(self, aggregator: str | nn.Module = "UPGrad"):
        super().__init__()
        if not isinstance(aggregator, str | nn.Module):
            raise ValueError(f"aggregator must be the name of a class of torchjd.aggregation, or one; {aggregator!r}.")
        self.aggregator = aggregator
        self._made: tuple[nn.Module, ...] = ()

    @property
    def label(self) -> str:
        """The name in tables and legends, with the aggregator's."""
        return f"Aggregated({self.aggregator if isinstance(self.aggregator, str) else type(self.aggregator).__name__})"

    def setup(self, run: Run) -> None:
        super().setup(run)
        made = named(self.aggregator) if isinstance(self.aggregator, str) else self.aggregator
        if hasattr(made, "reset"):
            raise ValueError(
                f"aggregator={type(made).__name__} keeps something between batches, which no checkpoint would hold. "
                "Use one that does not, such as UPGrad, MGDA or CAGrad(c=0.4)."
            )
        self._made = (made,)

    def combine(self, params: list[nn.Parameter], g: list[Tensor], u: list[Tensor], step: Step) -> None:
        rows = torch.stack([flatten(g), flatten(u)])
        seed = int(torch.randint(2**62, (), generator=step.generator))
        with torch.random.fork_rng(devices=[rows.device] if rows.is_cuda else []):
            torch.manual_seed(seed)
            assign(params, self._made[0](rows))


def named(name: str) -> nn.Module:
    """The aggregator of TorchJD of this name, in any case, with its default options.

    Raises:
        ImportError: TorchJD is not installed.
        ValueError: it has none of that name, or that one needs options.
    """
    require(f"aggregator={name!r}", "torchjd")
    from torchjd import aggregation

    classes = {n: getattr(aggregation, n) for n in aggregation.__all__}
    known = {n.casefold(): n for n, cls in classes.items() if issubclass(cls, aggregation.Aggregator)}
    if name.casefold() not in known:
        raise ValueError(did_you_mean("aggregator", name, known.values()))
    cls = classes[known[name.casefold()]]
    try:
        return cls()
    except TypeError as error:
        raise ValueError(
            f"aggregator={name!r} needs options: {error}. Pass {cls.__name__}(...) itself, from Python."
        ) from error
