"""A pool of named experts that is part of a model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from counterpoise.functional.gaussian_pooling import GaussianPool, fit_gaussian_pool, pooled_gaussian
from counterpoise.functional.pool_fitting import MIN_SAMPLES, Evidence, evidence, fit_label_pools, fit_pool
from counterpoise.functional.pooling import Pool, pooled, pooled_labels
from counterpoise.task import MultiLabel, Regression, SingleLabel, Task
from counterpoise.types import Present, stack_present

OF_EXPERTS = ("temperature", "weight", "loss", "offset", "slope", "error")
"""Fields of a pool whose last dimension is the experts."""
TOO_FEW = f"{MIN_SAMPLES} are needed, so its weights are equal and its temperatures 1"


class ExpertPool(nn.Module):
    """The pool of ``functional.pooling`` in buffers, so that it is stored and restored with the model.

    Of labels there is one pool for each, and of numbers that of ``functional.gaussian_pooling``.

    Args:
        experts: their names, in order.
        task: what they predict.
        first: the expert whose log-probabilities are the prediction until the fit; None for the normalised mean of all.
            With it nothing trains through the pool, so an expert drops out where it is not finite, before the fit
            too, and the prediction is NaN where none is left.
    """

    def __init__(self, experts: Sequence[str], task: Task, *, first: str | None = None):
        super().__init__()
        self.experts, self.task, self.first = tuple(experts), task, first
        for name, value in self._before_the_fit()._asdict().items():
            self.register_buffer(name, value.to(torch.get_default_dtype()))

    def _before_the_fit(self) -> Pool | GaussianPool:
        count, width = len(self.experts), self.task.width
        if isinstance(self.task, SingleLabel):
            pool = Pool.equal(count, width, floor=0.0)
        elif isinstance(self.task, MultiLabel):
            pool = Pool(*(torch.stack([value] * width) for value in Pool.equal(count, 2, floor=0.0)))
        else:
            pool = GaussianPool(*(torch.stack([value] * width) for value in GaussianPool.equal(count)))
        if self.first is None:
            return pool
        chosen = torch.tensor([float(name == self.first) for name in self.experts])
        return pool._replace(weight=chosen.expand_as(pool.weight).clone())

    @property
    def values(self) -> Pool | GaussianPool:
        """The buffers, experts in the order of ``experts``."""
        kind = GaussianPool if isinstance(self.task, Regression) else Pool
        return kind(*(self.get_buffer(name) for name in kind._fields))

    def reset(self) -> None:
        """Undo the fit."""
        self._keep(self._before_the_fit())

    def _keep(self, pool: Pool | GaussianPool) -> None:
        for name, value in pool._asdict().items():
            self.get_buffer(name).copy_(value)

    def forward(self, logits: Mapping[str, Tensor], present: Present = None) -> Tensor:
        """Log-probabilities (batch, classes), logits of labels or numbers of any non-empty subset of the experts.

        Args:
            logits: expert -> (batch, classes), what each predicts.
            present: expert -> (batch,) bool; None, or no entry, where it is there for every sample.
        """
        rows = [self.experts.index(name) for name in logits]
        pool = self.values
        of_experts = [name for name in OF_EXPERTS if name in pool._fields]
        pool = pool._replace(**{name: getattr(pool, name)[..., rows] for name in of_experts})
        if self.first is None:
            return self._pooled(pool, torch.stack(list(logits.values())), stack_present(logits, present))
        stacked, there = torch.stack(list(logits.values())), stack_present(logits, present)
        finite = stacked.isfinite().all(-1)
        there = finite if there is None else finite & there
        return self._pooled(pool, stacked, there).masked_fill(~there.any(0).unsqueeze(-1), math.nan)

    def _pooled(self, pool: Pool | GaussianPool, logits: Tensor, there: Tensor | None) -> Tensor:
        if isinstance(pool, GaussianPool):
            return pooled_gaussian(pool, logits, there)[0]
        return (pooled if isinstance(self.task, SingleLabel) else pooled_labels)(pool, logits, there)

    def fit(self, logits: Mapping[str, Tensor], target: Tensor, present: Present = None) -> None:
        """Fit the pool on validation outputs, with a warning for what could not be fitted.

        Args:
            logits: expert -> (samples, classes). Experts that are not in it count as absent.
            target: of the samples, as the task has it.
            present: as for a call.
        """
        some = next(iter(logits.values()))
        unread = {name: torch.zeros(len(some), dtype=torch.bool) for name in self.experts if name not in logits}
        there = stack_present(dict.fromkeys(self.experts, some), {**(present or {}), **unread})
        stacked = torch.stack([logits.get(name, torch.zeros_like(some)) for name in self.experts])
        if isinstance(self.task, SingleLabel):
            seen = evidence(stacked, target, there)
            samples, remarks = seen.samples, self._remarks(seen, tuple(logits))
        else:
            samples = len(target)
            remarks = [TOO_FEW] if samples < MIN_SAMPLES else []
            broken = ~stacked.isfinite().all(-1)
            broken = broken if there is None else broken & there
            remarks += [_broken(name, n) for name, n in zip(self.experts, broken.sum(1).tolist(), strict=True) if n]
        if remarks:
            basis = f"The pool has {samples} validation samples to be fitted on"
            warnings.warn(f"{basis}: {'; '.join(remarks)}.", stacklevel=2)
        if isinstance(self.task, SingleLabel):
            self._keep(fit_pool(stacked, target, there))
        elif isinstance(self.task, Regression):
            self._keep(fit_gaussian_pool(stacked, self.task.standardised(target), there))
        else:
            self._keep(fit_label_pools(stacked, target, there))

    def _remarks(self, seen: Evidence, read: Collection[str]) -> list[str]:
        """What is not fitted, and why."""
        few = seen.samples < MIN_SAMPLES
        remarks = [TOO_FEW] if few else []
        columns = (seen.there.sum(1), seen.broken, seen.constant)
        for name, count, broken, constant in zip(self.experts, *(column.tolist() for column in columns), strict=True):
            if broken:
                remarks.append(_broken(name, broken))
            if constant:
                remarks.append(f"{name!r} says the same of every sample" + ("" if few else " and gets weight 0"))
            elif not few and count < MIN_SAMPLES and name in read and (count or not broken):
                remarks.append(f"{name!r} is there for {count} samples, so its temperature stays 1")
        unseen = [] if few else (seen.per_class == 0).nonzero().flatten().tolist()
        if unseen:
            more = ", ..." if len(unseen) > 5 else ""
            remarks.append(f"none has class number {', '.join(map(str, unseen[:5]))}{more}, whose bias stays 0")
        return remarks


def _broken(expert: str, samples: int) -> str:
    return f"{expert!r} has logits that are not finite in {samples} samples and drops out there"
