"""``counterpoise.diagnose``: trains the runs of a model of one's own, or opens what is finished."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from counterpoise.analysis import BALANCE, BalanceWatch
from counterpoise.benchmark.display import clock
from counterpoise.data.split import Splits
from counterpoise.engine import Trainer
from counterpoise.engine.saving import digest_of
from counterpoise.engine.state import mix, seed_everything
from counterpoise.method import Method
from counterpoise.methods import Joint, Unimodal
from counterpoise.metrics.result import finished
from counterpoise.model import MultimodalModel
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.measuring import FinishedRun, measure

OWN_OPTIONS = ("run_dir", "seed", "label", "observers")
"""Options of the trainer that ``diagnose`` sets itself."""


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
    from counterpoise.studies.diagnosis.page import write

    for name in OWN_OPTIONS:
        if name in options:
            raise ValueError(f"{name} is set by diagnose itself; leave it out (seeds=..., out=... are its own).")
    if not seeds or isinstance(method, Method):
        raise ValueError("seeds must not be empty, and method must be a class or function that makes a new one.")
    modalities = _modalities_of(build)
    data = replace(data, test=None)
    runs, started = Path(out) / "runs", time.monotonic()
    plans = [(seed, m) for seed in seeds for m in (None, *modalities)]
    opened: dict[tuple[int, str | None], FinishedRun] = {}
    measured, label, monitor = [], "", ""
    for number, (seed, m) in enumerate(plans, 1):
        seed_everything(mix(seed, "model"))
        made = method() if m is None else Unimodal(m)
        trainer = Trainer(build(), made, seed=seed, **options)
        name = type(made).__name__ if m is None else f"{m}-alone"
        label = name if m is None else label
        monitor = trainer.monitor
        opened[seed, m] = _finished_run(trainer, data, runs, f"{name}-s{seed}", {**options, "seed": seed})
        spent = time.monotonic() - started
        left = f", about {clock(spent / number * (len(plans) - number))} left" if number < len(plans) else ""
        print(f"[{number}/{len(plans)}] {name}, seed {seed}: done{left}", file=sys.stderr, flush=True)
        if m == modalities[-1]:
            alone = {name: opened.pop((seed, name)) for name in modalities}
            measured.append(measure(opened.pop((seed, None)), alone, data, label))
    diagnosis = Diagnosis(label, monitor, measured, data.task.kind)
    write(diagnosis, Path(out))
    return diagnosis


def _modalities_of(build: Callable[[], MultimodalModel]) -> tuple[str, ...]:
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


def _finished_run(trainer: Trainer, data: Splits, runs: Path, name: str, options: dict[str, Any]) -> FinishedRun:
    """Train, or go on, or open what is finished; the directory is named after all that makes the run what it is."""
    directory = runs / f"{name}-{digest_of(trainer.fingerprint(data.train, data.val), trainer.model)}"
    if finished(directory):
        trainer.restore(directory / "best.ckpt", data.val)
    else:
        own = {"fabric": trainer.fabric, "run_dir": directory, "observers": [BalanceWatch(path=directory / BALANCE)]}
        trainer = Trainer(trainer.model, trainer.method, **{**options, **own})
        trainer.run(data, resume=True)
    return FinishedRun.at(trainer, directory)
