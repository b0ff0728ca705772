"""From runs, or from a model of one's own, to a diagnosis."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise.analysis import (
    BALANCE,
    BalanceCurves,
    BalanceWatch,
    Probe,
    contributions,
    features,
    gradient_balance,
    linear_probe,
    load,
    sample,
    subset_hits,
)
from counterpoise.benchmark.display import clock
from counterpoise.data.split import Split, Splits
from counterpoise.engine import Trainer
from counterpoise.engine.saving import digest_of
from counterpoise.engine.state import mix, seed_everything
from counterpoise.method import Method
from counterpoise.methods import Joint, Unimodal
from counterpoise.metrics.result import finished
from counterpoise.model import MultimodalModel
from counterpoise.report.collect import collect
from counterpoise.studies.diagnosis import Diagnosis
from counterpoise.studies.diagnosis_evidence import Evidence, Measured
from counterpoise.task import SingleLabel, Task
from counterpoise.types import stack_present, who_has

SAMPLES = 2000
"""Training samples that probes are fitted to, at most."""
BATCHES, BATCH = 8, 64
OWN_OPTIONS = ("run_dir", "seed", "label", "observers")
"""Options of the trainer that ``diagnose`` sets itself."""


@dataclass(frozen=True)
class Opened:
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
    def at(cls, trainer: Trainer, directory: Path) -> Opened:
        """The run in a directory, with its trainer, whose weights are the selected ones."""
        (run,) = collect([directory])
        kept = directory / BALANCE
        return cls(trainer, run.result or {}, run.history, load(kept, BalanceCurves) if kept.is_file() else None)


def mean(of: Tensor) -> float:
    """In double precision."""
    return float(of.double().mean())


def apart_by(one: Tensor, other: Tensor) -> float:
    """Mean squared difference of two models' hits: of right and wrong, the share where exactly one is right."""
    return mean((one.double() - other.double()).square())


def _from_chance(task: Task, hits: Tensor, target: Tensor) -> float | None:
    """The same of what is best said without looking; None for classes, where chance is a level and not a model.

    That is more cautious, and how the benchmark of the verdicts judged.
    """
    if isinstance(task, SingleLabel):
        return None
    return apart_by(hits.cpu(), task.hits(task.constant(target), target).cpu())


def _probed(model: MultimodalModel, shown: Split, tested: Split, modality: str) -> Probe:
    return linear_probe(features(model, shown, modality), features(model, tested, modality), task=model.task)


def measure(joint: Opened, alone: Mapping[str, Opened], splits: Splits, method: str) -> Measured:
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
        own, inside = (_probed(of, shown, tested, m) for of in (run.trainer.model, model))
        angles = balance.alignment[:, i][np.isfinite(balance.alignment[:, i])]
        evidence[m] = Evidence(
            samples=own.samples,
            chance=task.chance(target),
            alone=mean(by_itself),
            inside=mean(within),
            probe_alone=own.score,
            probe_inside=inside.score,
            fused=mean(right[has]),
            own_differ=apart_by(by_itself, within),
            probes_differ=apart_by(torch.from_numpy(own.hits), torch.from_numpy(inside.hits)),
            fused_differ=apart_by(by_itself, right[has]),
            contribution=shares[m],
            gradient=float(balance.relative[:, i].mean()),
            alignment=float(angles.mean()) if len(angles) else None,
            alone_differ=_from_chance(task, by_itself, target),
            probe_differ=_from_chance(task, torch.from_numpy(own.hits), target),
        )
        lines[f"{m} alone"], lines[f"{m} in {method}"] = (_curve(one, f"val/{m}/{monitor}") for one in (run, joint))
    return Measured(
        seed=joint.record["seed"],
        samples=len(tested),
        chance=nothing,
        fused=mean(right),
        apart=mean(apart),
        apart_differ=apart_by(apart, right),
        subsets=subsets,
        modalities=evidence,
        curves=lines,
        balance=joint.balance,
        alone={m: run.balance for m, run in alone.items()},
        epochs={method: joint.record["best_epoch"], **{m: run.record["best_epoch"] for m, run in alone.items()}},
    )


def _curve(run: Opened, key: str) -> list[float]:
    """A score of every epoch that has it."""
    return [float(line[key]) for line in run.history if key in line]


def diagnose(
    data: Splits,
    build: Callable[[], MultimodalModel],
    out: str | os.PathLike[str] = "diagnosis",
    *,
    method: Callable[[], Method] = Joint,
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> Diagnosis:
    """Is a model of your own imbalanced, which modality is starved, and what to try.

    Trains each modality alone and all jointly, for every seed, and writes the page ``diagnosis.html`` with
    ``diagnosis.json`` beside it. Called again, also after a crash, it goes on where it stopped: finished runs in
    ``out/runs`` are used again as long as model, method, data and options are the same.

    Args:
        data: the data set; its test split is not looked at.
        build: makes the model, new encoders included; called once per run, after seeding.
        out: where to write.
        method: makes the method to look at, such as ``cp.methods.Joint``.
        seeds: of the runs; one says nothing about the spread between seeds.
        **options: of ``Trainer``: epochs, batch_size, optimizer, ...

    Returns:
        Everything measured; ``print`` puts it in words.

    Raises:
        ValueError: for an option that is set here, fewer than two modalities, or a ``build`` that gives the same
            parameters twice.
    """
    from counterpoise.studies.diagnosis_page import write

    for name in OWN_OPTIONS:
        if name in options:
            raise ValueError(f"{name} is set by diagnose itself; leave it out (seeds=..., out=... are its own).")
    if not seeds or isinstance(method, Method):
        raise ValueError("seeds must not be empty, and method must be a class or function that makes a new one.")
    modalities = _checked(build)
    data = replace(data, test=None)
    runs, started = Path(out) / "runs", time.monotonic()
    plans = [(seed, m) for seed in seeds for m in (None, *modalities)]
    opened: dict[tuple[int, str | None], Opened] = {}
    measured, label, monitor = [], "", ""
    for number, (seed, m) in enumerate(plans, 1):
        seed_everything(mix(seed, "model"))
        made = method() if m is None else Unimodal(m)
        trainer = Trainer(build(), made, seed=seed, **options)
        name = type(made).__name__ if m is None else f"{m}-alone"
        label = name if m is None else label
        monitor = trainer.monitor
        opened[seed, m] = _trained(trainer, data, runs, f"{name}-s{seed}", {**options, "seed": seed})
        spent = time.monotonic() - started
        left = f", about {clock(spent / number * (len(plans) - number))} left" if number < len(plans) else ""
        print(f"[{number}/{len(plans)}] {name}, seed {seed}: done{left}", file=sys.stderr, flush=True)
        if m == modalities[-1]:
            alone = {name: opened.pop((seed, name)) for name in modalities}
            measured.append(measure(opened.pop((seed, None)), alone, data, label))
    diagnosis = Diagnosis(label, monitor, measured, data.task.kind)
    write(diagnosis, Path(out))
    return diagnosis


def _checked(build: Callable[[], MultimodalModel]) -> tuple[str, ...]:
    """The modalities of what is built."""
    if not callable(build) or isinstance(build, torch.nn.Module):
        raise ValueError("build must be a function that makes a new model, such as lambda: cp.build_model({...}, ...).")
    first, second = build(), build()
    if len(first.modalities) < 2:
        raise ValueError(f"The model has one modality ({', '.join(first.modalities)}); there is nothing to balance.")
    if {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}:
        raise ValueError(
            "build gives the same parameters twice, so one run would go on where another ended; make the encoders "
            "inside of it."
        )
    return first.modalities


def _trained(trainer: Trainer, data: Splits, runs: Path, name: str, options: dict[str, Any]) -> Opened:
    """Train, or go on, or open what is finished; the directory is named after all that makes the run what it is."""
    directory = runs / f"{name}-{digest_of(trainer.fingerprint(data.train, data.val), trainer.model)}"
    if finished(directory):
        trainer.restore(directory / "best.ckpt", data.val)
    else:
        own = {"fabric": trainer.fabric, "run_dir": directory, "observers": [BalanceWatch(path=directory / BALANCE)]}
        trainer = Trainer(trainer.model, trainer.method, **{**options, **own})
        trainer.run(data, resume=True)
    return Opened.at(trainer, directory)
