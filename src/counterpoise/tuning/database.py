"""The Optuna study in a database: several processes may search in it, and trials of dead ones come back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from counterpoise._checks import hidden
from counterpoise.metrics import lower_is_better
from counterpoise.recipe.recipe import Recipe
from counterpoise.tuning.space import Parameter

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

BEAT, GRACE = 10, 60
"""Seconds between two signs of life of a trial, and after which one without is taken for dead."""
RETRIES = 3
"""How often a trial that was killed is put back into the queue."""
PRUNERS = ("median", "halving", "none")
BASE, CONTINUES, KILLS, EXTRA, ERROR, SCORES = "base", "continues", "kills", "extra", "error", "scores"
"""What is noted with a trial: the number of the first that it continues; all that it continues, and how many of these
were killed; that it was one too many; why it failed; the score of each seed."""
RUNS = "runs"
"""Noted with a trial: the folders of its runs, one per seed."""
BEATS = "beats"
"""Noted with a trial: its process has given a first sign of life."""


@contextlib.contextmanager
def connected(
    url: str, name: str, direction: str, pruner: str, warmup: int, seed: int
) -> Iterator[tuple[Study, RDBStorage]]:
    """The study of that name, made when it is missing, and its database, whose connections are closed at the end.

    Args:
        url: of the database.
        name: of the study.
        direction: ``maximize`` or ``minimize``.
        pruner: one of ``PRUNERS``.
        warmup: epochs in which nothing is pruned.
        seed: of the sampler.

    Raises:
        ConnectionError: when the database cannot be used.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup + 1),
        "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, warmup)),
        "none": optuna.pruners.NopPruner(),
    }
    with contextlib.ExitStack() as closing:
        try:
            with experimental():
                storage = optuna.storages.RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": 100}} if url.startswith("sqlite") else None,
                    heartbeat_interval=BEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=put_back,
                )
            closing.callback(storage.engine.dispose)
            closing.callback(storage.remove_session)
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction=direction,  # pyright: ignore[reportArgumentType]
                sampler=_sampler(seed),
                pruner=pruners[pruner],
                load_if_exists=True,
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise ConnectionError(hidden(f"--storage {url} cannot be used: {str(error).splitlines()[0]}")) from error
        yield study, storage


@contextlib.contextmanager
def experimental() -> Iterator[None]:
    """Without the warnings that heartbeats are experimental, and that ``optimize`` is not what sends them."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")
        yield


def _sampler(seed: int) -> BaseSampler:
    """TPE with random numbers of its own for every trial.

    One stream for all would start again from its beginning when a search is continued, and draw the
    same values a second time. What continues another trial does not count, so that a search that was
    killed draws what it would have drawn.
    """
    from optuna.samplers import BaseSampler, TPESampler

    class PerTrial(BaseSampler):
        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            base = trial.user_attrs.get(BASE, trial.number)
            before = [t for t in study.get_trials(deepcopy=False) if t.number < base and CONTINUES not in t.user_attrs]
            digest = hashlib.sha256(f"{seed} {len(before)}".encode()).digest()
            self._inner = TPESampler(seed=int.from_bytes(digest[:4], "big"))

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
            return self._inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
            return self._inner.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
            return self._inner.sample_independent(study, trial, param_name, param_distribution)

    return PerTrial()


def name_of(recipe: Recipe, space: Sequence[Parameter], seeds: Sequence[int]) -> str:
    """The name of a study: the same search gives the same, any other another; ``recipe`` is one of its runs."""
    content = json.dumps([recipe.id, [p.__dict__ for p in space], list(seeds)], sort_keys=True)
    return f"{recipe.method}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def put_back(study: Study, trial: FrozenTrial, *, killed: bool = True) -> None:
    """Queue a trial that did not come to its end once more, at the place where it is on disk; unless that was done.

    Args:
        study: that it belongs to.
        trial: the failed one.
        killed: not stopped by the user; after ``RETRIES`` of these it stays failed.
    """
    import optuna

    kills = trial.user_attrs.get(KILLS, 0) + killed
    if kills > RETRIES or trial.number in continued(study.get_trials(deepcopy=False)):
        return
    continues = [*trial.user_attrs.get(CONTINUES, []), trial.number]
    attributes = {BASE: trial.number, **trial.user_attrs, CONTINUES: continues, KILLS: kills}
    for name in (ERROR, SCORES, BEATS):
        attributes.pop(name, None)
    study.add_trial(
        optuna.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attributes,
        )
    )


def direction(monitor: str) -> str:
    """Of a search for the best value of a metric."""
    return "minimize" if lower_is_better(monitor) else "maximize"


def counting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count: not those that wait, that another one continues, or that were one too many."""
    again = continued(trials)
    return [
        t for t in trials if t.state.name != "WAITING" and t.number not in again and not t.user_attrs.get(EXTRA, False)
    ]


def continued(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that another one continues."""
    return {number for t in trials for number in t.user_attrs.get(CONTINUES, [])}
