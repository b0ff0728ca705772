"""The search: an Optuna study that feeds the runner with trials, one run per seed."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from counterpoise.benchmark.runner import Failure
from counterpoise.metrics.result import finished, result_of
from counterpoise.recipe.recipe import Recipe
from counterpoise.tuning import database
from counterpoise.tuning.database import BASE, BEATS, ERROR, EXTRA, RUNS, SCORES, counting, experimental, put_back
from counterpoise.tuning.space import Parameter

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import Trial

LOOK = 1.0
"""Seconds between two questions to the database when there is nothing to start."""


@dataclass(frozen=True)
class TrialRun:
    """A run of a trial.

    Attributes:
        trial: its number, or that of the one that it continues.
        recipe: what is trained.
    """

    trial: int
    recipe: Recipe

    @property
    def id(self) -> str:
        """The recipe's: trials of the same values share their runs."""
        return self.recipe.id

    @property
    def seed(self) -> int:
        """The recipe's."""
        return self.recipe.seed

    @property
    def title(self) -> str:
        """What progress is shown under."""
        return f"trial {self.trial}, seed {self.seed}"


@dataclass
class _Open:
    """A trial that runs here."""

    trial: Trial
    runs: list[TrialRun]
    scores: dict[int, float] = field(default_factory=dict)
    read: int = 0
    """Bytes of the first run's metrics that are reported."""
    pruned: bool = False
    lost: bool = False
    """Another process took it for dead, as after a laptop slept; it runs again then."""


class Search:
    """Trials for the runner, until enough of them have ended; see ``Feed``.

    The first seed of a trial reports the score on validation after every epoch, and alone decides
    whether the trial is pruned; the score of the trial is the mean over all seeds. Several processes,
    on any machines, may search in one study.

    Args:
        study: of Optuna.
        storage: its database.
        space: what varies.
        recipe: of the runs, but for what varies.
        seeds: of each trial.
        trials: how many there are to be, of all processes together; pruned and failed ones count.
        folder: where the trials run.
        monitor: the metric of the fused prediction.
    """

    def __init__(
        self,
        study: Study,
        storage: RDBStorage,
        space: Sequence[Parameter],
        recipe: Recipe,
        seeds: Sequence[int],
        trials: int,
        folder: Path,
        monitor: str,
    ):
        self.study, self.storage, self.space, self.recipe = study, storage, space, recipe
        self.seeds, self.trials, self.folder, self.monitor = list(seeds), trials, folder, monitor
        self._open: dict[int, _Open] = {}
        self._queue: list[TrialRun] = []
        self._again: list[TrialRun] = []
        self._beaten = self._looked = -math.inf
        self._told = False
        self._marked = set[int]()
        self.waiting = True
        left, _ = self._count()
        self.total = len(self.seeds) * left

    # -- what the runner asks ----------------------------------------------------------------------
    def next(self) -> TrialRun | None:
        self._beat()
        while True:
            while self._queue:
                run = self._queue.pop(0)
                if not finished(self.folder / run.id):
                    return run
                self.ended(run, None)  # by a search that was killed
            if not self._more():
                return None

    def done(self, run: TrialRun, directory: Path) -> bool:
        return finished(directory)

    def enough(self, run: TrialRun) -> bool:
        self._beat()
        opened = self._of(run)
        return opened is None or (run.seed == self.seeds[0] and (self._report(opened) or opened.lost))

    def ended(self, run: TrialRun, failure: Failure | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        opened = self._of(run)
        if opened is None:
            return
        if failure is not None and failure.kind == "busy":  # it outlived a killed search, and may finish
            self._again.append(run)
            self.total += 1
            return
        try:
            self._enter(opened, run, failure)
        except UpdateFinishedTrialError:
            self._forget(opened)

    def rest(self) -> list[str]:
        return [run.id for run in self._queue]

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """When the context ends, however it does: trials that still run here go back into the queue."""
        try:
            yield
        finally:
            for opened in list(self._open.values()):
                self._close(opened, "FAIL", again=True, killed=False)

    # -- trials ------------------------------------------------------------------------------------
    def _count(self) -> tuple[int, int]:
        """How many trials there are to be started, and how many run elsewhere."""
        trials = self.study.get_trials(deepcopy=False)
        counted = {t.number for t in counting(trials)}
        queued = sum(t.state.name == "WAITING" for t in trials)
        here = {opened.trial.number for opened in self._open.values()}
        others = sum(t.state.name == "RUNNING" and t.number not in here for t in trials)
        return max(queued, self.trials - len(counted)), others

    def _more(self) -> bool:
        """Put a trial's first run into the queue; False when there is none to start now."""
        if time.monotonic() < self._looked + LOOK:
            return False
        import optuna

        self._mark()
        with experimental():
            optuna.storages.fail_stale_trials(self.study)
        left, others = self._count()
        if left > 0:
            self._ask()
            return True
        self._looked = time.monotonic()
        self._queue, self._again = self._again, []
        self.waiting = bool(self._queue or others)
        if others and not self._open and not self._told:
            self._told = True
            print(
                f"Waiting for {others} trial(s) of other processes, or {database.GRACE} s if they are dead.",
                file=sys.stderr,
            )
        return bool(self._queue)

    def _mark(self) -> None:
        """A first sign of life for trials that have none: without one Optuna never takes a trial for dead.

        Their process may have been killed between asking for the trial and giving it.
        """
        here = {opened.trial.number for opened in self._open.values()}
        for t in self.study.get_trials(deepcopy=False):
            if t.state.name == "RUNNING" and BEATS not in t.user_attrs and t.number not in here | self._marked:
                self._marked.add(t.number)
                self.storage.record_heartbeat(t._trial_id)

    def _ask(self) -> None:
        with experimental():
            trial = self.study.ask()
        self.storage.record_heartbeat(trial._trial_id)  # Optuna has no public name for it
        trial.set_user_attr(BEATS, True)
        ahead = [t for t in counting(self.study.get_trials(deepcopy=False)) if t.number < trial.number]
        if len(ahead) >= self.trials and BASE not in trial.user_attrs:  # another process was quicker
            trial.set_user_attr(EXTRA, True)
            self._tell(trial, "FAIL")
            return
        if BASE not in trial.user_attrs:
            trial.set_user_attr(BASE, trial.number)
        number = int(trial.user_attrs[BASE])
        own = self.recipe.but({parameter.name: parameter.suggest(trial) for parameter in self.space})
        runs = [TrialRun(number, own.but({"seed": seed})) for seed in self.seeds]
        trial.set_user_attr(RUNS, [run.id for run in runs])
        self._open[number] = _Open(trial, runs)
        self._queue.append(runs[0])

    def _enter(self, opened: _Open, run: TrialRun, failure: Failure | None) -> None:
        first = run.seed == self.seeds[0]
        if (first and self._report(opened)) or opened.pruned:
            self._close(opened, "PRUNED")
        elif opened.lost:
            self._forget(opened)
        elif failure is not None:
            opened.trial.set_user_attr(ERROR, f"seed {run.seed} {failure.reason}; log: {failure.log}")
            self._close(opened, "FAIL", again=failure.kind == "killed")
        else:
            record = result_of(self.folder / run.id)
            assert record is not None  # it would have been a failure
            score = record["val"][f"fused/{self.monitor}"]
            if not math.isfinite(score):  # predictions diverged, which Optuna takes for no result
                opened.trial.set_user_attr(ERROR, f"seed {run.seed}: its validation {self.monitor} is {score}")
                self._close(opened, "FAIL")
                return
            opened.scores[run.seed] = score
            opened.trial.set_user_attr(SCORES, {str(seed): value for seed, value in opened.scores.items()})
            if first:
                self._queue += opened.runs[1:]
            if len(opened.scores) == len(self.seeds):
                self._close(opened, "COMPLETE")

    def _report(self, opened: _Open) -> bool:
        """Report the epochs that have ended since; whether the trial is to be pruned."""
        from optuna.exceptions import UpdateFinishedTrialError

        path = self.folder / opened.runs[0].id / "metrics.jsonl"
        if opened.pruned or not path.is_file() or path.stat().st_size <= opened.read:
            return opened.pruned
        with path.open("rb") as file:
            file.seek(opened.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        opened.read += len(whole)
        for line in whole.splitlines():
            record = json.loads(line)
            value = record[f"val/fused/{self.monitor}"]
            if not math.isfinite(value):
                continue
            try:
                opened.trial.report(value, record["epoch"])
            except UpdateFinishedTrialError:
                opened.lost = True
                break
            if opened.trial.should_prune():
                opened.pruned = True
                break
        return opened.pruned

    def _close(self, opened: _Open, state: str, *, again: bool = False, killed: bool = True) -> None:
        self._forget(opened)
        if state != "COMPLETE":
            self.total -= len(self.seeds) - 1 - len(opened.scores)
        values = [opened.scores[seed] for seed in self.seeds] if state == "COMPLETE" else []
        self._tell(opened.trial, state, sum(values) / len(values) if values else None)
        if again:
            number = opened.trial.number
            put_back(self.study, next(t for t in self.study.get_trials() if t.number == number), killed=killed)

    def _forget(self, opened: _Open) -> None:
        number = opened.runs[0].trial
        del self._open[number]
        self._queue = [run for run in self._queue if run.trial != number]
        self._again = [run for run in self._again if run.trial != number]

    def _tell(self, trial: Trial, state: str, value: float | None = None) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, value, state=TrialState[state], skip_if_finished=True)

    def _beat(self) -> None:
        if time.monotonic() >= self._beaten + database.BEAT:
            self._beaten = time.monotonic()
            for opened in self._open.values():
                self.storage.record_heartbeat(opened.trial._trial_id)

    def _of(self, run: TrialRun) -> _Open | None:
        """None when the trial was closed while other seeds of it ran."""
        return self._open.get(run.trial)
