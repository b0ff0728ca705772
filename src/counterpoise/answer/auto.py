"""One good model of a data set, with the evidence: ``cp.auto`` and what the command has in common with it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise._checks import duration, whole
from counterpoise._extras import require
from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.answer.failures import Attempt, sound
from counterpoise.answer.preset import DEFAULT, Preset, model_of
from counterpoise.answer.rates import Trial, best_rate, left, rates_of, to_plain, try_rates
from counterpoise.answer.several import SEEDS_APART, together, trained_already
from counterpoise.data.split import Splits
from counterpoise.engine import SGD, Trainer
from counterpoise.engine.record import RATES, RunDirectory
from counterpoise.engine.setup import check_whole
from counterpoise.methods import Unimodal
from counterpoise.metrics.result import finished
from counterpoise.model import MultimodalModel

if TYPE_CHECKING:
    from counterpoise.answer.evidence import Evidence
    from counterpoise.answer.kept import Kept

LABEL = "auto"
OWN = ("method", "sam", "pool", "heads", "label")


@dataclass(frozen=True)
class Answer:
    """What ``auto`` made.

    Attributes:
        trainer: with the selected weights, of all runs; ``predict`` and ``evaluate`` are its verbs.
        result: scores and cost, as ``Trainer.run`` returns them.
        trials: of learning rates; empty where one was given.
        evidence: all that the page says.
        page: ``answer.html``; None without a run directory.
    """

    trainer: Trainer
    result: dict[str, Any]
    trials: list[Trial]
    evidence: Evidence
    page: Path | None = None

    @property
    def model(self) -> MultimodalModel:
        """The model."""
        return self.trainer.model

    def __str__(self) -> str:
        from counterpoise.answer.words import sentences

        return "\n".join(sentences(self.evidence))


def auto(
    data: Splits,
    encoders: Mapping[str, Any] | None = None,
    *,
    preset: Preset = DEFAULT,
    runs: int = 1,
    run_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    budget: float | str | None = None,
    fusion: Any = None,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Answer:
    """One model that stands up to the best modality alone and to joint training, without a choice to make.

    Trains all modalities together and each by a head of its own until the fused prediction no longer improves, stops
    each modality where it begins to overfit, and predicts by a pool of these experts that is fitted on validation. The
    learning rate comes from three short runs, unless ``optimizer`` is given. Where a modality or the fused prediction
    fails in training (NaN, infinite numbers), it goes on without it, with a warning.

    Args:
        data: the data set.
        encoders: modality -> what makes its encoder, such as ``lambda: cp.encoders.MLP(20)``; those left out get the
            default of what a sample looks like.
        preset: what is trained.
        runs: how many from different seeds, whose predictions are averaged before they are pooled; they cost so many
            times as much, in training and at prediction.
        run_dir: where the run and ``answer.html`` are written; None writes nothing. Of several, each run is in
            ``runs/NUMBER`` there, and their model beside them, as ``save_pretrained`` writes it.
        resume: go on with what is in ``run_dir``.
        budget: seconds of training in all, or text such as "30m"; the run ends with the best weights so far.
        fusion: as for ``build_model``; None takes the preset's.
        seed: of weights, order and everything random.
        progress: show the epochs.
        **options: of ``Trainer``: epochs, batch_size, optimizer, monitor, ...

    Raises:
        ValueError: for an option that is set here, data without validation, encoders that are made already, and a
            budget that is too small for one run.
        FloatingPointError: when every expert fails.
    """
    folder = None if run_dir is None else Path(run_dir)
    preset = preset.fused_by(fusion)
    options = {"seed": seed, "progress": progress, **options}
    every, failed = trained(data, encoders, preset, runs, folder, resume=resume, budget=budget, options=options)
    if runs == 1:
        return answered(every[0], data, failed, folder)
    against = (f"one run of {len(every)}", every[0].trainer)
    return answered(together(every, data, folder, name="", label=LABEL), data, failed, folder, against)


def trained(
    data: Splits,
    encoders: Mapping[str, Any] | None,
    preset: Preset,
    runs: int,
    folder: Path | None,
    *,
    resume: bool,
    budget: float | str | None,
    options: Mapping[str, Any],
    label: str = LABEL,
) -> tuple[list[Attempt], tuple[str, ...]]:
    """The runs of different seeds, and the experts that failed; the arguments are those of ``auto``."""
    _check(data, options, runs, folder)
    settings = {**preset.training, **options}
    progress, epochs, optimizer = settings.pop("progress"), settings.pop("epochs", 20), settings.pop("optimizer", None)
    rates = [] if optimizer is not None else rates_of(SGD().lr)
    own = folder if folder is None or runs == 1 else folder / "runs" / "0"
    settings["progress"] = False
    each = _Runs(data, encoders, preset, settings, epochs, optimizer, rates, own, progress, runs > 1, label)
    seconds = None if budget is None else duration("budget", budget)
    share = None if seconds is None else seconds / runs
    made, failed = sound(each.attempt, each.alone, data, share, own, resume=resume)
    every = [made]
    for number in range(1, runs):
        every += each.another(number, made, failed, share, resume=resume)
    return every, failed


def _check(data: Splits, options: Mapping[str, Any], runs: int, run_dir: str | PathLike[str] | None) -> None:
    if run_dir is not None:
        require("The page of auto", "jinja2", "matplotlib", "scipy")
    for name in OWN:
        if name in options:
            raise ValueError(f"{name} is set by auto itself; leave it out, or train with Trainer.")
    whole("runs", runs, low=1)
    check_whole(data)


@dataclass(frozen=True)
class _Runs:
    """What is trained, of data in memory.

    Attributes:
        data: the data set.
        encoders: as given.
        preset: when nothing fails.
        settings: arguments of ``Trainer``.
        epochs: of a run.
        optimizer: that was given; None where rates are tried.
        rates: that are tried.
        run_dir: of the run.
        progress: show its epochs.
        several: it is one of several, so that a resumed answer opens it when it has ended.
        label: of the run.
    """

    data: Splits
    encoders: Mapping[str, Any] | None
    preset: Preset
    settings: Mapping[str, Any]
    epochs: int
    optimizer: Any
    rates: Sequence[float]
    run_dir: str | PathLike[str] | None
    progress: bool
    several: bool
    label: str

    def trainer(self, failed: Sequence[str], lr: float | None, *, alone: str | None = None, **more: Any) -> Trainer:
        """A new one, without the experts that failed, or of one modality alone."""
        sound = self.preset.without(failed, self.data.modalities)
        model = model_of(self.data, self.encoders, sound, seed=self.settings["seed"])
        method = sound.method(**sound.settings) if alone is None else Unimodal(alone)
        optimizer = self.optimizer if lr is None else SGD(lr)
        return Trainer(model, method, optimizer=optimizer, label=self.label, **{**self.settings, **more})

    def attempt(self, failed: Sequence[str], seconds: float | None, resume: bool) -> Attempt:
        """The run without the experts that failed."""
        make = partial(self.trainer, failed)
        trials = tried(make, self.data, self.rates, self.epochs, seconds, self.run_dir, resume)
        rate, rest = best_rate(trials) if trials else None, left(seconds, trials)
        trainer = make(rate, epochs=self.epochs, budget=rest, run_dir=self.run_dir, progress=self.progress)
        return Attempt(trainer, trials, self._result(trainer, resume))

    def another(
        self, number: int, first: Attempt, failed: Sequence[str], seconds: float | None, *, resume: bool
    ) -> list[Attempt]:
        """The run of another seed at the first one's rate; none, with a warning, where training diverges."""
        where = None if self.run_dir is None else Path(self.run_dir).with_name(str(number))
        seed = self.settings["seed"] + SEEDS_APART * number
        own = replace(self, run_dir=where, settings={**self.settings, "seed": seed})
        rate = best_rate(first.trials) if first.trials else None
        trainer = own.trainer(failed, rate, epochs=self.epochs, budget=seconds, run_dir=where, progress=self.progress)
        try:
            return [Attempt(trainer, [], own._result(trainer, resume))]
        except FloatingPointError as error:
            warnings.warn(f"Run {number} failed, and the answer goes without it: {error}", stacklevel=3)
            return []

    def _result(self, trainer: Trainer, resume: bool) -> dict[str, Any]:
        """Of the run, which is trained unless it is one of several that has ended."""
        opened = trained_already(trainer, self.data) if resume and self.several else None
        return opened or trainer.run(self.data, resume=resume)

    def alone(self, modality: str, failed: Sequence[str], seconds: float | None) -> Trainer:
        """One modality, to see whether it fails."""
        rate = self.rates[0] if self.rates else None
        return self.trainer(failed, rate, alone=modality, epochs=self.epochs, budget=seconds)


def tried(
    make: Callable[..., Trainer],
    data: Splits,
    rates: Sequence[float],
    epochs: int,
    budget: float | None,
    run_dir: str | PathLike[str] | None,
    resume: bool,
) -> list[Trial]:
    """The trials of these rates; those of a run that goes on are read from its directory."""
    if not rates:
        return []
    path = None if run_dir is None else Path(run_dir) / RATES
    if path is not None:
        if not (resume and path.is_file() and finished(path.parent)):  # refuses before the trials
            RunDirectory(path.parent, resume=resume, tested=data.test is not None).release()
        if resume and path.is_file():
            return [Trial(**trial) for trial in json.loads(path.read_text(encoding="utf-8"))]
    trials = try_rates(make, data, rates, epochs, budget)
    if path is not None:
        write_text(path, to_json(to_plain(trials), indent=1) + "\n")
    return trials


def answered(
    made: Attempt,
    splits: Splits,
    without: Sequence[str],
    folder: Path | None,
    against: tuple[str, Trainer] | None = None,
    kept: Kept | None = None,
) -> Answer:
    """Measure, and write the page where there is a run directory.

    Args:
        made: a trained model with a pool.
        splits: the data set.
        without: the experts that failed in training.
        folder: for the page; None writes none.
        against: what to compare with on the same samples is called, and its trainer.
        kept: of a student, what it keeps of its teacher.
    """
    from counterpoise.answer.evidence import measure
    from counterpoise.answer.page import write

    trainer = made.trainer
    evidence = measure(trainer, splits, made.result, made.trials, against, without, kept)
    page = None if folder is None else write(evidence, folder)
    return Answer(trainer, made.result, made.trials, evidence, page)
