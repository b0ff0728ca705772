"""An observer that ends a run in the middle."""

from __future__ import annotations

from counterpoise.observer import Observer


class PowerCut(Observer):
    """Raises ``error`` after so many batches."""

    def __init__(self, batches: int, error: BaseException | None = None):
        self.left, self.error = batches, error or RuntimeError("power cut")

    def on_batch_end(self, trainer) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error
