"""Cross-validation: every sample is in the test part of one fold, and each fold validates inside itself."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from counterpoise._checks import did_you_mean, whole
from counterpoise._extras import require
from counterpoise.data.arrays import assemble
from counterpoise.data.split import Split, Splits
from counterpoise.data.splitting import held_out, holdout
from counterpoise.task import MultiLabel, Regression, Task

GROUP = "group"
"""Leave one group out."""
Pairs = list[tuple[np.ndarray, np.ndarray]]
"""Positions to train on and to test on, of each fold."""


def is_column(folds: str | None) -> bool:
    """Whether a text for ``folds`` names a column of a table, each of whose values is left out once."""
    return folds is not None and not folds.isdigit() and folds != GROUP and _splitter_named(folds) is None


def folds_of(
    folds: int | str | Any | Iterable[Any],
    strata: np.ndarray,
    group: np.ndarray | None = None,
    seed: int = 0,
) -> Pairs:
    """The folds of a data set.

    Args:
        folds: how many, with equal shares of classes, labels or quantiles, groups whole; ``"group"`` or the name of a
            column, to leave one group out at a time; a splitter of scikit-learn, or its name with the number of
            folds, as ``"GroupKFold:5"``; or (train, test) positions of each fold.
        strata: (n,) numbers of classes or quantiles, or (n, labels) of zeros and ones, as ``Task.strata`` gives them.
        group: (n,) names of groups that no fold may separate.
        seed: which of the many such divisions.

    Raises:
        ValueError: no such splitter, groups that are missing or too few, positions that are none.
    """
    if isinstance(folds, str) and not folds.isdigit():
        splitter = _splitter_named(folds)
        folds = _made(*splitter, seed) if splitter is not None else _leave_one_out(folds, group)
    if isinstance(folds, int | str):
        return _equal(whole("folds", int(folds), low=2), strata, group, seed)
    if hasattr(folds, "split"):
        folds = _split_by(folds, strata, group)
    pairs = [(np.asarray(train), np.asarray(test)) for train, test in folds]
    for number, (train, test) in enumerate(pairs):
        wrong = next((part for part in (train, test) if part.ndim != 1 or part.dtype.kind not in "iu"), None)
        if wrong is not None or not len(train) or not len(test) or np.intersect1d(train, test).size:
            raise ValueError(f"Fold {number}: (train, test) must be positions, none in both and neither empty.")
        outside = [i for part in (train, test) for i in (part.min(), part.max()) if not 0 <= i < len(strata)]
        if outside:
            raise ValueError(f"Fold {number}: positions must be in 0..{len(strata) - 1}; got {outside[0]}.")
    return pairs


def parts_of(
    pair: tuple[np.ndarray, np.ndarray], task: Task, target: Any, group: np.ndarray | None, val: float, seed: int
) -> dict[str, np.ndarray]:
    """Positions of "train", "val" and "test" of a fold: a share of what is to be learned from selects the weights.

    Raises:
        ValueError: a class or label that no training sample has although others do, with the cure.
    """
    learn, test = pair
    strata = task.strata(target)
    kept, held = holdout(strata[learn], val, seed, None if group is None else group[learn])
    parts = {"train": learn[kept], "val": learn[held], "test": test}
    _refuse_unseen(parts, task, target)
    return parts


def divided(whole_set: Split, parts: Mapping[str, np.ndarray]) -> Splits:
    """The parts of a data set at these positions; what is learned from data is learned from the training part."""
    return assemble(whole_set.fitted(torch.from_numpy(parts["train"])), parts)


def _refuse_unseen(parts: Mapping[str, np.ndarray], task: Task, target: Any) -> None:
    if isinstance(task, Regression):
        return
    yes = target.numpy() > 0 if isinstance(task, MultiLabel) else np.eye(task.width, dtype=bool)[target.numpy()]
    gone = [task.names[i] for i in np.flatnonzero(yes.any(0) & ~yes[parts["train"]].any(0))]
    if gone:
        shown = ", ".join(map(repr, gone[:5])) + (", ..." if len(gone) > 5 else "")
        raise ValueError(
            f"No training sample of this fold has {shown}: it is in too few groups or samples for every fold. Take "
            "fewer folds, folds that keep classes in proportion (--folds 5), or leave it out of the data."
        )
    absent = [task.names[i] for i in np.flatnonzero(yes.any(0) & ~yes[parts["test"]].any(0))]
    if absent:
        shown = ", ".join(map(repr, absent[:5])) + (", ..." if len(absent) > 5 else "")
        warnings.warn(
            f"No test sample of this fold has {shown}: its scores are of the others; those of all folds have it.",
            stacklevel=3,
        )


def _equal(count: int, strata: np.ndarray, group: np.ndarray | None, seed: int) -> Pairs:
    """So many folds by holding out a share of what is left, again and again."""
    groups = len(strata) if group is None else len(np.unique(group))
    if count > groups:
        what = "samples" if group is None else "groups"
        raise ValueError(f"folds={count} needs as many {what}; there are {groups}. Ask for {groups} folds at most.")
    everyone = np.arange(len(strata))
    left, pairs = everyone, []
    for number in range(count):
        held = left
        if number < count - 1:
            kept, out = held_out(strata[left], 1 / (count - number), seed, None if group is None else group[left])
            held, left = left[out], left[kept]
        pairs.append((np.setdiff1d(everyone, held), held))
    return pairs


def _leave_one_out(name: str, group: np.ndarray | None) -> Pairs:
    if group is None:
        raise ValueError(
            f"folds={name!r} leaves one group out at a time, and the data have no groups. Name their column "
            "(--data.group), or ask for a number of folds (--folds 5)."
        )
    names = np.unique(group)
    if len(names) < 2:
        raise ValueError(f"folds={name!r} needs at least 2 groups; all {len(group)} samples are of {str(names[0])!r}.")
    return [(np.flatnonzero(group != one), np.flatnonzero(group == one)) for one in names]


def _splitter_named(text: str) -> tuple[type, int | None] | None:
    """A class of ``sklearn.model_selection`` and its number of folds."""
    require(f"folds={text!r}", "sklearn")
    from sklearn import model_selection

    name, _, count = text.partition(":")
    known = {label.casefold(): label for label in model_selection.__all__ if "Halving" not in label}
    cls = getattr(model_selection, known.get(name.casefold(), ""), None)
    if not inspect.isclass(cls) or not hasattr(cls, "split"):
        return None
    if count and not count.isdigit():
        raise ValueError(f"folds={text!r}: a whole number of folds follows the colon; got {count!r}.")
    return cls, int(count) if count else None


def _made(cls: type, count: int | None, seed: int) -> Any:
    taken = inspect.signature(cls).parameters
    if count is not None and "n_splits" not in taken:
        raise ValueError(f"folds: {cls.__name__} takes no number of folds; leave ':{count}' out.")
    options: dict[str, Any] = {} if count is None else {"n_splits": count}
    if "shuffle" in taken:
        options["shuffle"] = True
    if "random_state" in taken:
        options["random_state"] = seed
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(f"folds: {cls.__name__} needs options: {error}. Pass it to cp.cross_validate.") from error


def _split_by(splitter: Any, strata: np.ndarray, group: np.ndarray | None) -> Sequence[Any]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The groups parameter is ignored")  # held against them below
            folds = list(splitter.split(np.zeros(len(strata)), strata, group))
    except ValueError as error:
        raise ValueError(f"folds: {type(splitter).__name__} cannot divide these samples: {error}") from error
    if group is not None:
        apart = [set(group[train]) & set(group[test]) for train, test in folds]
        if any(apart):
            first = min(map(str, set.union(*apart)))
            raise ValueError(
                f"folds: {type(splitter).__name__} puts samples of the group {first!r} on both sides of a fold. Take "
                "one that keeps groups whole, such as GroupKFold or StratifiedGroupKFold."
            )
    return folds


def column_of_folds(folds: str, group: str, columns: Iterable[str]) -> str:
    """The column that ``folds`` names, which is then the column of groups too.

    Raises:
        ValueError: with the nearest when there is none, and where another column of groups is named.
    """
    names = list(columns)
    if folds not in names:
        more = "It is a number, 'group', a splitter of scikit-learn such as GroupKFold:5, or a column."
        raise ValueError("folds: " + did_you_mean("column or splitter", folds, names) + f" {more}")
    if group not in (GROUP, folds):
        raise ValueError(f"folds={folds!r} leaves out one value of that column at a time; leave group={group!r} out.")
    return folds
