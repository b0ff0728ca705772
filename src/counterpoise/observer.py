"""Observers look at a run and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoise.engine import Run
    from counterpoise.types import Batch


class Observer:
    """Base of what watches a run; every hook does nothing.

    Observers read the run and must leave it, its model and the random numbers alone.
    """

    def on_fit_start(self, run: Run) -> None:
        """Before the first batch, also of a resumed run."""

    def on_batch_start(self, run: Run, batch: Batch) -> None:
        """Before the method sees a batch (this replica's share, on its device)."""

    def before_update(self, run: Run) -> None:
        """Gradients are final (edited and clipped); the parameters have not moved yet."""

    def on_batch_end(self, run: Run) -> None:
        """After a batch."""

    def on_epoch_end(self, run: Run, record: Mapping[str, Any]) -> None:
        """After validation, before the checkpoint; ``record`` is the line of ``metrics.jsonl``."""

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, or when the run is interrupted."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with, tensors and plain values; kept in every checkpoint. Empty: nothing is."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counterpart of ``state_dict``, called after ``on_fit_start`` of a resumed run."""
