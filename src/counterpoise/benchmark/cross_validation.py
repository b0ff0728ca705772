"""Cross-validation from Python: a model per fold and seed, and what their predictions are worth together."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import number, whole
from counterpoise._extras import require
from counterpoise._names import made
from counterpoise.benchmark.cells import column_title, number_text
from counterpoise.benchmark.folds import Fold, FoldTables, OutOfFold, pooled, ratio_of
from counterpoise.build import build_model
from counterpoise.data.folds import divided, folds_of, parts_of
from counterpoise.data.split import Split, Splits
from counterpoise.data.table import Table
from counterpoise.engine import Trainer
from counterpoise.engine.saving import digest_of
from counterpoise.method import Method
from counterpoise.metrics.comparing import Interval, t_interval
from counterpoise.metrics.result import result_of
from counterpoise.model import MultimodalModel

Build = Callable[[Splits], MultimodalModel]


@dataclass(frozen=True)
class CrossValidation:
    """What came out of the folds.

    Attributes:
        folds: in order.
        scores: name of a score, as ``"fused/accuracy"`` -> (folds, seeds) on the test samples of each fold.
        together: name of a score -> (seeds,) of the predictions of all folds together.
        predictions: (seeds, n, width) what each tested sample is predicted by the model that has not seen it:
            probabilities, or numbers in their units.
        ids: names of these samples.
        monitor: the metric that selected the weights.
    """

    folds: Sequence[Fold]
    scores: Mapping[str, np.ndarray]
    together: Mapping[str, np.ndarray]
    predictions: np.ndarray
    ids: Sequence[str]
    monitor: str

    def interval(self, score: str | None = None, *, confidence: float = 0.95) -> Interval:
        """The mean of a score over the folds, with the t interval of Nadeau and Bengio (2003).

        Args:
            score: as ``"fused/macro_f1"``; the fused monitor when None.
            confidence: of the interval.
        """
        values = self.scores[score or f"fused/{self.monitor}"].mean(1).tolist()
        return replace(t_interval(values, ratio=ratio_of(self.folds), confidence=confidence), p=None)

    def difference(self, other: CrossValidation, score: str | None = None, *, confidence: float = 0.95) -> Interval:
        """This minus another on the same folds, with the corrected interval.

        Raises:
            ValueError: the other has other folds.
        """
        if (list(self.folds), list(self.ids)) != (list(other.folds), list(other.ids)):
            raise ValueError("difference: both must be of the same folds; pass the same data, cv and groups.")
        column = score or f"fused/{self.monitor}"
        values = (self.scores[column].mean(1) - other.scores[column].mean(1)).tolist()
        return t_interval(values, ratio=ratio_of(self.folds), confidence=confidence)

    def to_markdown(self) -> str:
        """A row per fold, and the scores of all predictions together."""
        column = f"fused/{self.monitor}"
        means = dict(enumerate(self.scores[column].mean(1).tolist()))
        together = {"model": {name: values.tolist() for name, values in self.together.items()}}
        return FoldTables(self.folds, column, {"model": means}, together).to_markdown()

    def __repr__(self) -> str:
        column = f"fused/{self.monitor}"
        interval, all_together = self.interval(), statistics.fmean(self.together[column])
        mean, low, high = (
            None if x is None else number_text(column, x) for x in (interval.mean, interval.low, interval.high)
        )
        return (
            f"CrossValidation({len(self.folds)} folds, {self.scores[column].shape[1]} seeds: {column_title(column)} "
            f"{mean} [{low}, {high}]; of all predictions together {number_text(column, all_together)})"
        )


def cross_validate(
    data: Split | Splits | Table,
    build: Build | None = None,
    method: Method | str = "Joint",
    *,
    cv: int | str | Any | Iterable[Any] = 5,
    groups: Any | None = None,
    seeds: Sequence[int] = (0,),
    val: float = 0.15,
    out: str | PathLike[str] | None = None,
    **settings: Any,
) -> CrossValidation:
    """Train a model for every fold and seed, and score each on what it has not seen.

    A share of what a fold learns from selects its weights, and divides no group. What is learned from data, such as
    the means of a `Tabular` or the scale of numbers, is learned anew from the training part of each fold.

    >>> import numpy as np, counterpoise as cp
    >>> data = cp.from_arrays({"a": np.random.rand(60, 3), "b": np.random.rand(60, 2)}, np.arange(60) % 2)
    >>> result = cp.cross_validate(data, method="OGM", cv=3, epochs=1, batch_size=8, progress=False)
    >>> result.scores["fused/accuracy"].shape, result.predictions.shape
    ((3, 1), (1, 60, 2))

    Args:
        data: a table, any split, or a data set, all of whose parts are taken together.
        build: makes a model for the data set of a fold; default encoders and the method's fusion when None.
        method: how to train: a name, or a method, which each run gets a copy of.
        cv: how many folds, ``"group"``, a splitter of scikit-learn or its name, or (train, test) positions: `folds_of`.
        groups: (n,) names (speakers, say) that neither folds nor validation divide; the data's own when None.
        seeds: of training; each fold is trained once with each.
        val: share of what a fold learns from to select the weights by, in (0, 1).
        out: a folder for run directories, one per fold and seed; what is finished there is not trained again.
        **settings: of `Trainer`.

    Raises:
        ValueError: folds that cannot be made, or a class that a fold cannot learn.
    """
    require("cross_validate", "scipy", "sklearn")
    number("val", val, above=0, below=1)
    seeds = [whole("seeds", seed, low=0) for seed in seeds]
    samples, groups = _whole_of(data, groups)
    pairs = folds_of(cv, samples.task.strata(samples.target), groups)
    scores, parts, monitor = {}, {seed: [] for seed in seeds}, ""
    for place, pair in enumerate(pairs):
        fold_data = divided(samples, parts_of(pair, samples.task, samples.target, groups, val, 0))
        for seed in seeds:
            folder = None if out is None else Path(out) / f"fold{place}-s{seed}"
            trainer, result = _trained(fold_data, build, method, seed, folder, settings)
            monitor = trainer.monitor
            for name, value in result["test"].items():
                scores.setdefault(name, {})[place, seed] = value
            parts[seed].append(_out_of_fold(trainer, fold_data))
    return CrossValidation(
        [_fold(place, pair, groups) for place, pair in enumerate(pairs)],
        {name: _array(values, len(pairs), seeds) for name, values in scores.items()},
        _together([pooled(parts[seed], _metrics(scores)) for seed in seeds]),
        np.stack([_shown(parts[seed]).numpy() for seed in seeds]),
        [samples.ids[int(i)] for _, test in pairs for i in test],
        monitor,
    )


def _trained(
    data: Splits, build: Build | None, method: Method | str, seed: int, folder: Path | None, settings: dict[str, Any]
) -> tuple[Trainer, dict[str, Any]]:
    """A trained trainer, and what ``result.json`` holds; read from the run directory when it is finished.

    The name of the directory ends in a hash of all that decides the run, so that another one is not taken for it.
    """
    how = copy.deepcopy(made("method", method))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(data) if build else build_model(data, how.default_fusion, heads=how.own_heads)
    trainer = Trainer(model, how, **copy.deepcopy(settings), seed=seed)
    if folder is None:
        return trainer, trainer.run(data)
    assert data.test is not None
    decides = [trainer.fingerprint(data.train, data.val), data.test.fingerprint()]
    run_dir = trainer.run_dir = folder.with_name(f"{folder.name}-{digest_of(decides, model)}")
    result = result_of(run_dir)
    if result is None or not result.get("test") or result.get("out_of_time"):
        return trainer, trainer.run(data, resume=True)
    trainer.restore(run_dir / "best.ckpt", data.val)
    return trainer, result


def _fold(place: int, pair: tuple[np.ndarray, np.ndarray], groups: np.ndarray | None) -> Fold:
    held = [] if groups is None else sorted(set(map(str, groups[pair[1]].tolist())))
    return Fold(place, ", ".join(held) if len(held) <= 3 else "", len(pair[0]), len(pair[1]))


def _out_of_fold(trainer: Trainer, data: Splits) -> OutOfFold:
    assert data.test is not None
    predictions = trainer.predict(data.test)
    return OutOfFold(data.task, predictions.named(), predictions.target, predictions.present or {})


def _metrics(scores: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix("fused/") for name in scores if name.startswith("fused/")]


def _array(values: Mapping[tuple[int, int], float], folds: int, seeds: Sequence[int]) -> np.ndarray:
    return np.array([[values.get((fold, seed), np.nan) for seed in seeds] for fold in range(folds)])


def _together(of_seeds: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([scores[name] for scores in of_seeds]) for name in of_seeds[0]}


def _shown(parts: Sequence[OutOfFold]) -> Tensor:
    return torch.cat([part.task.predictions(part.outputs["fused"]) for part in parts])


def _whole_of(data: Split | Splits | Table, groups: Any | None) -> tuple[Split, np.ndarray | None]:
    """All samples as one split, and the group of each: what is named, or the data's own."""
    stated = None if groups is None else np.asarray(groups)
    if isinstance(data, Table):
        return data.samples(labelled=True), _named_groups(data) if stated is None else stated
    if isinstance(data, Split):
        return data, stated
    if not isinstance(data, Splits):
        raise ValueError(f"data must be a table, a split or a data set; got {type(data).__name__}.")
    parts = [part for part in (data.train, data.val, data.test) if part is not None]
    wholes = {id(getattr(part, "whole", None)): getattr(part, "whole", None) for part in parts}
    whole_set = next(iter(wholes.values()))
    if len(wholes) > 1 or whole_set is None:
        raise ValueError(
            "data: the parts of this data set are none of one whole. Pass the table, or a split with all samples."
        )
    rows = torch.cat([part.indices for part in parts]).sort().values  # pyright: ignore[reportAttributeAccessIssue]
    own = None if data.group is None else data.group[rows.numpy()]
    return whole_set.subset(rows), own if stated is None else stated


def _named_groups(table: Table) -> np.ndarray | None:
    """The names in the table's column of groups; None where it has none."""
    if table.group not in table.columns:
        return None
    codes, texts = table.columns.coded(table.group)
    return np.array([*texts.to_pylist(), None], object)[codes].astype(str)
