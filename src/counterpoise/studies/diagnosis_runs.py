"""From runs, or from a model of one's own, to a diagnosis."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    chance,
    contributions,
    features,
    gradient_balance,
    linear_probe,
    load,
    sample,
    subset_accuracies,
)
from counterpoise.benchmark.runner import clock
from counterpoise.data.split import Splits
from counterpoise.engine import Trainer
from counterpoise.engine.state import mix, seed_everything
from counterpoise.functional import rules
from counterpoise.fusions.base import stack_present
from counterpoise.method import Method
from counterpoise.methods import Joint, Unimodal
from counterpoise.metrics.result import finished
from counterpoise.model import MultimodalModel
from counterpoise.report.collect import collect
from counterpoise.studies.diagnosis import Diagnosis, Evidence, Measured
from counterpoise.task import SingleLabel, Task
from counterpoise.types import FUSED

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


def share(of: Tensor) -> float:
    """Of a tensor of bools, those that are true."""
    return float(of.double().mean())


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
    subsets = subset_accuracies(model, tested, predict=predict)
    nothing, monitor = chance(tested.target), joint.record["monitor"]
    shares = contributions(subsets, model.modalities, nothing)
    balance = gradient_balance(model, splits.train, batch_size=BATCH, most=BATCHES, predict=predict)
    inner, outer = joint.trainer.predict(tested), {m: run.trainer.predict(tested).fused for m, run in alone.items()}
    votes = rules.mean(torch.stack(list(outer.values())), stack_present(outer, inner.present))
    right, apart = (logits.argmax(1) == inner.target for logits in (inner.fused, votes))
    found, lines = {}, {}
    for i, (m, run) in enumerate(alone.items()):
        has = torch.ones_like(right) if inner.present is None else inner.present.get(m, torch.ones_like(right))
        by_itself, within = (logits[m][has].argmax(1) == inner.target[has] for logits in (outer, inner.unimodal))
        own, inside = (
            linear_probe(features(of, shown, m), features(of, tested, m)) for of in (run.trainer.model, model)
        )
        angles = balance.alignment[:, i][np.isfinite(balance.alignment[:, i])]
        found[m] = Evidence(
            samples=own.samples,
            chance=chance(inner.target[has]),
            alone=run.record["val"][f"{m}/accuracy"],
            inside=joint.record["val"][f"{m}/accuracy"],
            probe_alone=own.accuracy,
            probe_inside=inside.accuracy,
            fused=share(right[has]),
            own_differ=share(by_itself != within),
            probes_differ=float((own.right != inside.right).mean()),
            fused_differ=share(by_itself != right[has]),
            contribution=shares[m],
            gradient=float(balance.relative[:, i].mean()),
            alignment=float(angles.mean()) if len(angles) else None,
        )
        key = f"val/{m}/{monitor}"
        for name, history in ((f"{m} alone", run.history), (f"{m} in {method}", joint.history)):
            lines[name] = [float(line[key]) for line in history if key in line]
    return Measured(
        seed=joint.record["seed"],
        samples=len(tested),
        chance=nothing,
        fused=joint.record["val"][f"{FUSED}/accuracy"],
        apart=share(apart),
        apart_differ=share(apart != right),
        subsets=subsets,
        modalities=found,
        curves=lines,
        balance=joint.balance,
        alone={m: run.balance for m, run in alone.items()},
        epochs={method: joint.record["best_epoch"], **{m: run.record["best_epoch"] for m, run in alone.items()}},
    )


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
    check_labels(data.task)
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
    found = Diagnosis(label, monitor, measured)
    write(found, Path(out))
    return found


def check_labels(task: Task) -> None:
    """ValueError for a task whose predictions are not right or wrong."""
    if not isinstance(task, SingleLabel):
        raise ValueError(
            f"A diagnosis compares which samples models get right, so it takes single-label targets; these are "
            f"{task.kind}."
        )


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
    settings = json.dumps(trainer.fingerprint(data.train, data.val), sort_keys=True)
    directory = runs / f"{name}-{_digest(settings, trainer.model.state_dict().values())}"
    if finished(directory):
        trainer.restore(directory / "best.ckpt", data.val)
    else:
        own = {"fabric": trainer.fabric, "run_dir": directory, "observers": [BalanceWatch(path=directory / BALANCE)]}
        trainer = Trainer(trainer.model, trainer.method, **{**options, **own})
        trainer.run(data, resume=True)
    return Opened.at(trainer, directory)


def _digest(settings: str, start: Iterable[Any]) -> str:
    """Ten hexadecimal digits of the settings and the weights before training."""
    found = hashlib.blake2b(settings.encode(), digest_size=5)
    for value in start:
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
