"""The angle between the gradients of modalities that train one after the other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import choice, whole
from counterpoise.analysis.arrays import save
from counterpoise.analysis.objective import differentiable, evaluation
from counterpoise.functional.gradients import cosine
from counterpoise.functional.means import masked_mean
from counterpoise.functional.spectrum import is_supported
from counterpoise.model import MultimodalModel
from counterpoise.observer import Observer
from counterpoise.types import Batch

if TYPE_CHECKING:
    from counterpoise.engine import Run

PAIRINGS = ("stored", "batch")


GRADIENT_CHANGE = "gradient-change.npz"
"""Name of its file in a run directory."""


@dataclass(frozen=True)
class GradientChanges:
    """One row per update that follows one of another modality.

    Attributes:
        cosine: (n,) between the old modality's gradient and the one applied now, in [-1, 1].
        ratio: (n,) length of the new one divided by that of the old one.
        old: (n,) names.
        new: (n,) names.
        epoch: (n,) from 0.
        batch: (n,) number of the batch in the epoch.
    """

    cosine: np.ndarray
    ratio: np.ndarray
    old: np.ndarray
    new: np.ndarray
    epoch: np.ndarray
    batch: np.ndarray

    def __len__(self) -> int:
        return len(self.cosine)


@dataclass(frozen=True)
class Histogram:
    """Counts of values, and what describes them in words.

    Attributes:
        edges: (bins + 1,).
        counts: (bins,).
        mean: of the values; nan when there are none.
        median: of the values.
        below: share of the values under ``threshold``.
        threshold: the value ``below`` is about.
    """

    edges: np.ndarray
    counts: np.ndarray
    mean: float
    median: float
    below: float
    threshold: float

    @property
    def n(self) -> int:
        """How many values."""
        return int(self.counts.sum())


def histogram(
    values: np.ndarray, *, bins: int = 80, span: tuple[float, float] | None = None, threshold: float = 0.08
) -> Histogram:
    """Counts in bins of equal width.

    Args:
        values: cosines, finite.
        bins: how many; the paper has 80.
        span: left and right end; None for the least and largest value. Values outside are not counted.
        threshold: which share of the values to report is under this.
    """
    whole("bins", bins, low=1)
    if not len(values):
        edges = np.linspace(*(span or (-1.0, 1.0)), bins + 1)
        return Histogram(edges, np.zeros(bins, dtype=int), np.nan, np.nan, np.nan, threshold)
    counts, edges = np.histogram(values, bins, span)
    return Histogram(
        edges, counts, float(values.mean()), float(np.median(values)), float((values < threshold).mean()), threshold
    )


def common_head_weights(model: MultimodalModel, old: str, new: str) -> tuple[list[Tensor], list[Tensor]]:
    """Weight matrices of two modalities' heads that correspond: by position from the output, of equal shape.

    With one head for all modalities these are the same parameters twice.

    Raises:
        ValueError: when the fusion has no head per modality, or no two layers have one shape.
    """
    heads = [list(_head_weights(model, m).values())[::-1] for m in (old, new)]
    pairs = [(a, b) for a, b in zip(*heads, strict=False) if a.shape == b.shape][::-1]
    if not pairs:
        raise ValueError(f"The heads of {old!r} and {new!r} have no weights of one shape, so no gradients to compare.")
    return [a for a, _ in pairs], [b for _, b in pairs]


class GradientChange(Observer):
    """Records the cosine between gradients of successive modalities; an observer that changes nothing.

    An update belongs to a modality when its parameters, and no other modality's, have a gradient. From the second
    modality on every update gives a row, against the modality that trained before: the update before it in methods
    that alternate within the batch, the stage before it in methods with stages.
    The parameters are the corresponding weights of the two heads (``common_head_weights``). The new gradient is
    the one applied, after everything the method did to it. Joint training has no rows.

    Args:
        pairing: what the old gradient is. ``"stored"``: the last one applied to the old modality, so at the end of
            its stage. ``"batch"``: that of the old modality's own loss at the present weights, on the samples of the
            new one's batch (one more pass, in evaluation mode, per recorded update).
        every: record each ``every``-th batch only.
        path: where to write an ``.npz`` after every epoch. None keeps rows in memory only (``changes()``).
            ``load(path, GradientChanges)`` reads it.

    Example::

        watch = GradientChange()
        Trainer(model, MLA(), epochs=20, observers=[watch]).fit(data.train, data.val)
        histogram(watch.changes().cosine)
    """

    def __init__(self, pairing: str = "stored", *, every: int = 1, path: str | os.PathLike[str] | None = None):
        self.pairing, self.every = choice("pairing", pairing, PAIRINGS), whole("every", every, low=1)
        self.path = None if path is None else Path(path)
        self._forget()

    def _forget(self) -> None:
        self._rows: list[tuple[str, str, int, int]] = []
        self._values: list[Tensor] = []  # (2,) each: cosine and ratio, left on the device until asked for
        self._last: dict[str, dict[str, Tensor]] = {}  # modality -> head weights' names -> gradient
        self._now: str | None = None
        self._before: str | None = None
        self._samples: Batch | None = None

    # -- what the engine calls -------------------------------------------------------------------
    def on_fit_start(self, run: Run) -> None:
        """Start anew."""
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """All rows so far, and what the next update is compared with."""
        names = sorted({name for row in self._rows for name in row[:2]})
        places = [[names.index(old), names.index(new), *at] for old, new, *at in self._rows]
        return {
            "names": names,
            "rows": torch.tensor(places).reshape(-1, 4),
            "values": torch.stack(self._values) if self._values else torch.empty(0, 2),
            "last": self._last,
            "turn": [self._before, self._now],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with these."""
        names = state["names"]
        self._rows = [(names[old], names[new], epoch, batch) for old, new, epoch, batch in state["rows"].tolist()]
        self._values = list(state["values"].unbind())
        self._last, (self._before, self._now) = state["last"], state["turn"]
        self.write()

    def on_batch_start(self, run: Run, batch: Batch) -> None:
        """Remember which samples the updates to come are about."""
        self._samples = batch

    def before_update(self, run: Run) -> None:
        """Compare, when the gradients are final and the weights have not moved."""
        active = [m for m in run.model.modalities if _has_gradient(run.model, m)]
        if not active and run.phase.train is not None:
            active = list(run.phase.train)  # encoders without parameters
        if len(active) != 1:
            return
        (new,) = active
        if new != self._now:
            self._before, self._now = self._now, new
        if self._before is not None and run.state.batch_in_epoch % self.every == 0:
            self._compare(run, self._before, new)
        self._last[new] = {
            name: p.grad.detach().clone() for name, p in _head_weights(run.model, new).items() if p.grad is not None
        }

    def on_batch_end(self, run: Run) -> None:
        """Let the samples go."""
        self._samples = None

    def on_epoch_end(self, run: Run, record: Mapping[str, Any]) -> None:
        """Write what is there."""
        self.write()

    def on_fit_end(self, run: Run) -> None:
        """Write what is there, also when the run stops early."""
        self.write()

    # -- comparing -------------------------------------------------------------------------------
    def _compare(self, run: Run, old: str, new: str) -> None:
        ours, theirs = common_head_weights(run.model, new, old)
        names = {id(p): name for name, p in _head_weights(run.model, old).items()}
        applied = [torch.zeros_like(p) if p.grad is None else p.grad for p in ours]
        if self.pairing == "batch":
            before = [run.mean(g) for g in self._gradient(run, old, theirs)]
        else:
            stored = self._last.get(old, {})
            before = [stored.get(names[id(p)]) for p in theirs]
            before = None if any(g is None for g in before) else [g for g in before if g is not None]
        if before is None:
            return
        lengths = [torch.cat([g.flatten() for g in gradients]).norm() for gradients in (applied, before)]
        self._values.append(torch.stack([cosine(applied, before), lengths[0] / lengths[1]]).detach())
        self._rows.append((old, new, run.epoch, run.state.batch_in_epoch))

    def _gradient(self, run: Run, modality: str, params: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of a modality's own loss on the present samples; zeros where none of them has it."""
        samples = self._samples
        assert samples is not None
        model, split, rows = run.model, run.train_split, samples.index.cpu()
        x = samples.inputs.get(modality)
        x = split.batch(rows.tolist(), modality, None).to(samples.target.device) if x is None else x
        mask = None if split.present is None else split.present.get(modality)
        there = None if mask is None else mask[rows].to(samples.target.device)
        # The old modality's own head is frozen during a stage of the new one.
        with differentiable(params), evaluation(model), torch.enable_grad():
            with torch.no_grad():
                encoded = model.encode({modality: x}, (modality,), None if there is None else {modality: there})
            logits = run.method.predict(model.fuse(encoded).alone(modality), model).float()
            loss = masked_mean(run.loss(logits, samples.target), there)
            return list(torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True))

    # -- results ---------------------------------------------------------------------------------
    def changes(self) -> GradientChanges:
        """All rows so far."""
        values = torch.stack(self._values).double().cpu().numpy() if self._values else np.empty((0, 2))
        old, new, epoch, batch = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
        return GradientChanges(
            values[:, 0],
            values[:, 1],
            np.array(old, str),
            np.array(new, str),
            np.array(epoch, int),
            np.array(batch, int),
        )

    def write(self) -> None:
        """Write all rows to ``path`` (nothing without one)."""
        if self.path is not None:
            save(self.path, self.changes())


def _has_gradient(model: MultimodalModel, modality: str) -> bool:
    return any(p.grad is not None for p in model.parameters_of(modality))


def _head_weights(model: MultimodalModel, modality: str) -> dict[str, Tensor]:
    head = model.head_of(modality)
    return {name: layer.weight for name, layer in head.named_modules() if is_supported(layer)}
