"""The balance between modalities over the course of training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from counterpoise._checks import whole
from counterpoise.analysis.arrays import save
from counterpoise.analysis.balance import gradient_balance
from counterpoise.analysis.objective import SplitLoss, differentiable, sample, value
from counterpoise.data.split import Split
from counterpoise.observer import Observer

if TYPE_CHECKING:
    from counterpoise.engine import Run


BALANCE = "balance.npz"
"""Name of its file in a run directory."""


@dataclass(frozen=True)
class BalanceCurves:
    """One row before training and one after every epoch; M modalities in model order.

    Attributes:
        epoch: (rows,) epochs finished.
        magnitude: (rows, M) mean length of the fused loss's gradient by the modality's own parameters.
        relative: (rows, M) the same divided by the length of those parameters.
        alignment: (rows, M) mean cosine with the gradient of the modality's own loss; see ``GradientBalance``.
        conflict: (rows, M, M) mean cosine between the modalities' gradients by shared parameters; nan without any.
        train_loss: (rows, M) loss of the modality's own prediction on training samples, in evaluation mode.
        val_loss: (rows, M) the same on validation samples. ``overfitting_ratio`` takes the two.
        fused_train_loss: (rows,) loss of the fused prediction on the training samples.
        fused_val_loss: (rows,) the same on the validation samples.
    """

    epoch: np.ndarray
    magnitude: np.ndarray
    relative: np.ndarray
    alignment: np.ndarray
    conflict: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    fused_train_loss: np.ndarray
    fused_val_loss: np.ndarray


class BalanceWatch(Observer):
    """Records how strongly each modality is trained, and how it generalises; an observer that changes nothing.

    Measured on a fixed sample of the training and of the validation split, for every modality that the method's
    prediction reads, also for those that a stage leaves alone; nan for one that it never reads. Costs a pass over
    the training samples with gradients, and two over both without, per epoch.

    Args:
        samples: of each split, at most.
        batch_size: samples per gradient.
        seed: of the sample.
        path: where to write an ``.npz`` after every epoch. None keeps rows in memory only (``curves()``).
            ``load(path, BalanceCurves)`` reads it.
    """

    def __init__(
        self, samples: int = 512, *, batch_size: int = 64, seed: int = 0, path: str | os.PathLike[str] | None = None
    ):
        self.samples, self.batch_size = whole("samples", samples, low=1), batch_size
        self.seed, self.path = seed, None if path is None else Path(path)
        self._rows: list[dict[str, np.ndarray]] = []

    def on_fit_start(self, run: Run) -> None:
        """Measure before training."""
        self._rows = []
        if (run.epoch, run.state.batch_in_epoch) == (0, 0):
            self._measure(run)

    def state_dict(self) -> dict[str, Any]:
        """All rows so far."""
        return {name: torch.from_numpy(column) for name, column in vars(self.curves()).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with these rows."""
        kept = {field.name: state[field.name].cpu().numpy() for field in fields(BalanceCurves)}
        self._rows = [{name: column[i] for name, column in kept.items()} for i in range(len(kept["epoch"]))]
        self.write()

    def on_epoch_end(self, run: Run, record: Mapping[str, Any]) -> None:
        """Measure and write."""
        self._measure(run)

    def _measure(self, run: Run) -> None:
        train, val = (sample(split, self.samples, self.seed) for split in (run.train_split, run.val_split))
        model, predict = run.model, run.method.predict
        names = run.method.reads(model.modalities)
        columns = [model.modalities.index(m) for m in names]
        with differentiable([p for p in model.parameters() if run.owns(p)]):
            balance = gradient_balance(
                model,
                train,
                batch_size=self.batch_size,
                seed=self.seed,
                predict=predict,
                criterion=run.loss,
                counts=run.loss.counted,
                only=names,
            )
        row = {}
        for name in ("magnitude", "relative", "alignment"):
            row[name] = np.full(len(model.modalities), np.nan)
            row[name][columns] = _mean(getattr(balance, name))
        row["conflict"] = np.full((len(model.modalities),) * 2, np.nan)
        row["conflict"][np.ix_(columns, columns)] = _mean(balance.conflict)
        row["epoch"] = np.array(run.epoch)
        for name, split in (("train_loss", train), ("val_loss", val)):
            row[name] = np.array([_own_loss(run, split, m) if m in names else np.nan for m in model.modalities])
            fused = SplitLoss(model, split, criterion=run.loss, counts=run.loss.counted, predict=predict, only=names)
            row[f"fused_{name}"] = np.array(value(fused))
        self._rows.append(row)
        self.write()

    def curves(self) -> BalanceCurves:
        """All rows so far."""
        return BalanceCurves(*(np.array([row[field.name] for row in self._rows]) for field in fields(BalanceCurves)))

    def write(self) -> None:
        """Write the rows to ``path`` (nothing without one)."""
        if self.path is not None:
            save(self.path, self.curves())


def _own_loss(run: Run, split: Split, modality: str) -> float:
    """The loss; nan where no sample of the split has the modality."""
    if split.present is not None and modality in split.present and not split.present[modality].any():
        return float("nan")
    return value(SplitLoss(run.model, split, modality, criterion=run.loss, counts=run.loss.counted))


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over the batches, of the finite values; nan where there are none."""
    there = np.isfinite(rows)
    return np.where(there.any(0), np.where(there, rows, 0.0).sum(0) / np.maximum(there.sum(0), 1), np.nan)
