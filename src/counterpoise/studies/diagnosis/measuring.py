"""From finished runs to what was measured with one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise.analysis import (
    BALANCE,
    BalanceCurves,
    Probe,
    contributions,
    features,
    gradient_balance,
    linear_probe,
    load,
    sample,
    subset_hits,
)
from counterpoise.data.split import Split, Splits
from counterpoise.engine import Trainer
from counterpoise.model import MultimodalModel
from counterpoise.report.collect import collect
from counterpoise.studies.diagnosis.evidence import ModalityEvidence, SeedEvidence
from counterpoise.task import SingleLabel, Task
from counterpoise.types import stack_present, who_has

SAMPLES = 2000
"""Training samples that probes are fitted to, at most."""
BATCHES, BATCH = 8, 64


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        trainer: with the selected weights.
        record: content of ``result.json``.
        history: lines of ``metrics.jsonl``.
        balance: what ``BalanceWatch`` recorded; None where it did not run.
    """

    trainer: Trainer
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    balance: BalanceCurves | None

    @classmethod
    def at(cls, trainer: Trainer, directory: Path) -> FinishedRun:
        """The run in a directory, with its trainer, whose weights are the selected ones."""
        (run,) = collect([directory])
        kept = directory / BALANCE
        return cls(trainer, run.result or {}, run.history, load(kept, BalanceCurves) if kept.is_file() else None)


def mean(of: Tensor) -> float:
    """In double precision."""
    return float(of.double().mean())


def hits_difference(one: Tensor, other: Tensor) -> float:
    """Mean squared difference of two models' hits: of right and wrong, the share where exactly one is right."""
    return mean((one.double() - other.double()).square())


def _difference_from_chance(task: Task, hits: Tensor, target: Tensor) -> float | None:
    """The same of what is best said without looking; None for classes, where chance is a level and not a model.

    That is more cautious, and how the benchmark of the verdicts judged.
    """
    if isinstance(task, SingleLabel):
        return None
    return hits_difference(hits.cpu(), task.hits(task.constant(target), target).cpu())


def _probe(model: MultimodalModel, shown: Split, tested: Split, modality: str) -> Probe:
    return linear_probe(features(model, shown, modality), features(model, tested, modality), task=model.task)


def measure(joint: FinishedRun, alone: Mapping[str, FinishedRun], splits: Splits, method: str) -> SeedEvidence:
    """Measure a joint model against models of each modality alone, on the validation split.

    Args:
        joint: the run on all modalities.
        alone: modality -> its run.
        splits: the data of all of them.
        method: name of the joint run's method.
    """
    model, predict = joint.trainer.model, joint.trainer.method.predict
    tested = splits.val  # what to try is a choice, and choices are not made on test
    shown = sample(splits.train, SAMPLES)
    task, loss = model.task, joint.trainer.loss
    subsets = subset_hits(model, tested, predict=predict)
    nothing, monitor = task.chance(tested.target), joint.record["monitor"]
    shares = contributions(subsets, model.modalities, nothing)
    trained = {"predict": predict, "criterion": loss, "counts": loss.counted}
    balance = gradient_balance(model, splits.train, batch_size=BATCH, most=BATCHES, **trained)
    inner, outer = joint.trainer.predict(tested), {m: run.trainer.predict(tested).fused for m, run in alone.items()}
    votes = task.mean(torch.stack(list(outer.values())), stack_present(outer, inner.present))
    right, apart = (task.hits(logits, inner.target) for logits in (inner.fused, votes))
    evidence, lines = {}, {}
    for i, (m, run) in enumerate(alone.items()):
        has = who_has(m, inner.present, len(right), right.device)
        target = inner.target[has]
        by_itself, within = (task.hits(logits[m][has], target) for logits in (outer, inner.unimodal))
        own, inside = (_probe(of, shown, tested, m) for of in (run.trainer.model, model))
        angles = balance.alignment[:, i][np.isfinite(balance.alignment[:, i])]
        evidence[m] = ModalityEvidence(
            samples=own.samples,
            chance=task.chance(target),
            alone=mean(by_itself),
            inside=mean(within),
            probe_alone=own.score,
            probe_inside=inside.score,
            fused=mean(right[has]),
            own_differ=hits_difference(by_itself, within),
            probes_differ=hits_difference(torch.from_numpy(own.hits), torch.from_numpy(inside.hits)),
            fused_differ=hits_difference(by_itself, right[has]),
            contribution=shares[m],
            gradient=float(balance.relative[:, i].mean()),
            alignment=float(angles.mean()) if len(angles) else None,
            alone_differ=_difference_from_chance(task, by_itself, target),
            probe_differ=_difference_from_chance(task, torch.from_numpy(own.hits), target),
        )
        lines[f"{m} alone"], lines[f"{m} in {method}"] = (_curve(one, f"val/{m}/{monitor}") for one in (run, joint))
    return SeedEvidence(
        seed=joint.record["seed"],
        samples=len(tested),
        chance=nothing,
        fused=mean(right),
        apart=mean(apart),
        apart_differ=hits_difference(apart, right),
        subsets=subsets,
        modalities=evidence,
        curves=lines,
        balance=joint.balance,
        alone={m: run.balance for m, run in alone.items()},
        epochs={method: joint.record["best_epoch"], **{m: run.record["best_epoch"] for m, run in alone.items()}},
    )


def _curve(run: FinishedRun, key: str) -> list[float]:
    """A score of every epoch that has it."""
    return [float(line[key]) for line in run.history if key in line]
