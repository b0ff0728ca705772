"""What a prediction is made of: what each modality says, and its share in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.split import Split
from counterpoise.engine import Predictions, Run
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley
from counterpoise.task import Regression, SingleLabel, Task

Answer = str | tuple[str, ...] | float | tuple[float, ...] | None


@dataclass(frozen=True)
class Vote:
    """What one modality says of a sample.

    Attributes:
        answer: from it alone; None where the sample lacks it.
        probabilities: of its classes or labels, or its numbers; None where the sample lacks it.
        share: its Shapley share of the score of the fused answer, over what is said without any modality: equal
            probabilities, or the mean of the training samples. The shares of a sample add up to ``Prediction.score``.
    """

    answer: Answer
    probabilities: Mapping[str, float] | None
    share: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one sample, and who voted for it.

    Attributes:
        answer: a class, the labels, or the numbers; None for a sample without any modality.
        probabilities: of classes or labels, or the numbers by their names.
        score: the likelihood of the answer, less the one without any modality.
        votes: modality -> what it says.
    """

    answer: Answer
    probabilities: Mapping[str, float] | None
    score: float
    votes: Mapping[str, Vote]


def answers(task: Task, predictions: Tensor, there: Tensor) -> list[Answer]:
    """One per sample: the name of a class, the names of labels, or numbers; None where nothing is there."""
    said: list[Answer] = []
    for values, known in zip(predictions.tolist(), there.tolist(), strict=True):
        if not known:
            said.append(None)
        elif isinstance(task, SingleLabel):
            said.append(task.names[max(range(len(values)), key=values.__getitem__)])
        elif isinstance(task, Regression):
            said.append(values[0] if task.width == 1 else tuple(values))
        else:
            said.append(tuple(name for name, p in zip(task.names, values, strict=True) if p > 0.5))
    return said


def target_of(task: Task, predictions: Tensor) -> Tensor:
    """The predictions as if they were the truth."""
    if isinstance(task, SingleLabel):
        return predictions.argmax(-1)
    return predictions if isinstance(task, Regression) else (predictions > 0.5).to(predictions.dtype)


def explained(run: Run, split: Split, predictions: Predictions) -> list[Prediction]:
    """Every prediction with its votes.

    Args:
        run: with the trained model.
        split: the samples.
        predictions: what is predicted of them.
    """
    task, names = run.task, list(predictions.unimodal)
    shown = {name: task.predictions(logits) for name, logits in predictions.named().items()}
    everything = predictions.anything()
    there = {"fused": everything, **{m: (predictions.present or {}).get(m, everything) for m in names}}
    said = {name: answers(task, values, there[name]) for name, values in shown.items()}
    shares = _shares(run, split, target_of(task, shown["fused"].double()), names)
    total = torch.stack(list(shares.values())).sum(0)

    def named(name: str, i: int) -> dict[str, float] | None:
        return dict(zip(task.names, shown[name][i].tolist(), strict=True)) if there[name][i] else None

    return [
        Prediction(
            said["fused"][i],
            named("fused", i),
            float(total[i]),
            {m: Vote(said[m][i], named(m, i), float(shares[m][i])) for m in names},
        )
        for i in range(len(everything))
    ]


def _shares(run: Run, split: Split, answer: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Modality -> (n,) share of the score of the answer."""
    orders = sampled_orders(names)
    chosen = coalitions(names, orders)
    nothing = run.task.score(torch.zeros(len(answer), run.task.width, dtype=torch.float64), answer)
    values: dict[Any, Tensor] = {frozenset[str](): nothing}
    for subset, predictions in zip(chosen, run.predict_subsets(split, chosen), strict=True):
        values[subset] = torch.where(
            predictions.anything(), run.task.score(predictions.fused.double(), answer), nothing
        )
    return shapley(values, names, orders)
