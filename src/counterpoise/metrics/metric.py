"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """A score of predictions, on whole splits and never on batches.

    Attributes:
        function: (outputs, target) -> a number; of classes and labels the outputs are logits, of numbers they are
            predictions in the units of the target. All are on the CPU, in float64.
        lower_is_better: whether less is better; None when the metric does not say, and then it selects nothing.
        share: whether it lies between 0 and 1, and tables show per cent.
        weighs: whether the function also takes (n,) weights of the samples, or None; others count all samples alike.
    """

    function: Callable[..., float | None]
    lower_is_better: bool | None = False
    share: bool = True
    weighs: bool = False

    def __call__(self, outputs: Tensor, target: Tensor, weight: Tensor | None = None) -> float | None:
        """The number; None where the target leaves it undefined."""
        return self.function(outputs, target, weight) if self.weighs else self.function(outputs, target)
