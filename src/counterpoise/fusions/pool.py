"""A pool of named experts that is part of a model."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from counterpoise.functional.pool_fitting import MIN_SAMPLES, Evidence, evidence, fit_pool
from counterpoise.functional.pooling import Pool, pooled
from counterpoise.fusions.base import Present, stack_present


class ExpertPool(nn.Module):
    """The pool of ``functional.pooling`` in buffers, so that it is stored and restored with the model.

    Args:
        experts: their names, in order.
        num_classes: number of classes.
        first: the expert whose log-probabilities are the prediction until the fit; None for the normalised mean of all.
    """

    def __init__(self, experts: Sequence[str], num_classes: int, *, first: str | None = None):
        super().__init__()
        self.experts, self.num_classes, self.first = tuple(experts), num_classes, first
        for name, value in self._before_the_fit()._asdict().items():
            self.register_buffer(name, value.to(torch.get_default_dtype()))

    def _before_the_fit(self) -> Pool:
        pool = Pool.equal(len(self.experts), self.num_classes, floor=0.0)
        if self.first is None:
            return pool
        return pool._replace(weight=torch.tensor([float(name == self.first) for name in self.experts]))

    @property
    def values(self) -> Pool:
        """The buffers, experts in the order of ``experts``."""
        return Pool(*(self.get_buffer(name) for name in Pool._fields))

    def reset(self) -> None:
        """Undo the fit."""
        self._keep(self._before_the_fit())

    def _keep(self, pool: Pool) -> None:
        for name, value in pool._asdict().items():
            self.get_buffer(name).copy_(value)

    def forward(self, logits: Mapping[str, Tensor], present: Present = None) -> Tensor:
        """Log-probabilities (batch, classes) from the logits of any non-empty subset of the experts.

        Args:
            logits: expert -> (batch, classes).
            present: expert -> (batch,) bool; None, or no entry, where it is there for every sample.
        """
        rows = [self.experts.index(name) for name in logits]
        pool = self.values
        pool = pool._replace(temperature=pool.temperature[rows], weight=pool.weight[rows], loss=pool.loss[rows])
        return pooled(pool, torch.stack(list(logits.values())), stack_present(logits, present))

    def fit(self, logits: Mapping[str, Tensor], target: Tensor, present: Present = None) -> None:
        """Fit the pool on validation outputs, with a warning for what could not be fitted.

        Args:
            logits: expert -> (samples, classes). Experts that are not in it count as absent.
            target: (samples,) class numbers.
            present: as for a call.
        """
        some = next(iter(logits.values()))
        unread = {name: torch.zeros(len(some), dtype=torch.bool) for name in self.experts if name not in logits}
        there = stack_present(dict.fromkeys(self.experts, some), {**(present or {}), **unread})
        stacked = torch.stack([logits.get(name, torch.zeros_like(some)) for name in self.experts])
        seen = evidence(stacked, target, there)
        remarks = self._remarks(seen, tuple(logits))
        if remarks:
            basis = f"The pool has {seen.samples} validation samples to be fitted on"
            warnings.warn(f"{basis}: {'; '.join(remarks)}.", stacklevel=2)
        self._keep(fit_pool(stacked, target, there))

    def _remarks(self, seen: Evidence, read: Collection[str]) -> list[str]:
        """What is not fitted, and why."""
        few = seen.samples < MIN_SAMPLES
        remarks = [f"{MIN_SAMPLES} are needed, so its weights are equal and its temperatures 1"] if few else []
        columns = (seen.there.sum(1), seen.broken, seen.constant)
        for name, count, broken, constant in zip(self.experts, *(column.tolist() for column in columns), strict=True):
            if broken:
                remarks.append(f"{name!r} has logits that are not finite in {broken} samples and drops out there")
            if constant:
                remarks.append(f"{name!r} says the same of every sample" + ("" if few else " and gets weight 0"))
            elif not few and count < MIN_SAMPLES and name in read and (count or not broken):
                remarks.append(f"{name!r} is there for {count} samples, so its temperature stays 1")
        unseen = [] if few else (seen.per_class == 0).nonzero().flatten().tolist()
        if unseen:
            more = ", ..." if len(unseen) > 5 else ""
            remarks.append(f"none has class number {', '.join(map(str, unseen[:5]))}{more}, whose bias stays 0")
        return remarks
