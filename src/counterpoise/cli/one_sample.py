"""``counterpoise predict RUN --audio a.wav --image b.png``: one sample, and who voted for the answer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from counterpoise._checks import shown
from counterpoise._json import to_json
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import loaded
from counterpoise.task import Regression, Task
from counterpoise.trained import Prediction, TrainedModel
from counterpoise.trained.intake import typed
from counterpoise.trained.votes import Answer

MOST = 5
"""Probabilities that are printed, the highest."""
_VALUE = "value:"


def add_modalities(parser: Options, modalities: Mapping[str, Any]) -> None:
    """An option for each modality of a trained model, unless the command has one of that name."""
    taken = {option for action in parser._actions for option in action.option_strings}
    for m in modalities:
        if f"--{m}" not in taken:
            parser.add_argument(
                f"--{m}", dest=f"{_VALUE}{m}", metavar="VALUE", help="of one sample: a file, a text, or {column: value}"
            )


def sample_of(options: argparse.Namespace) -> dict[str, str]:
    """Modality -> what was typed."""
    typed = {name.removeprefix(_VALUE): value for name, value in vars(options).items() if name.startswith(_VALUE)}
    return {m: value for m, value in typed.items() if value is not None}


def predict_one(run: str, sample: Mapping[str, str], *, trust: bool, as_json: bool) -> None:
    """Print the answer for one sample, with probabilities and the vote of each modality."""
    model = loaded(run, trust=trust)
    prediction: Prediction = model.predict({m: _value(model, m, text) for m, text in sample.items()}, explain=True)
    if as_json:
        print(to_json(prediction, indent=2))
        return
    print(shown(f"{_said(prediction.answer)}  ({_likely(prediction, model.task)})"))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("says")
    if not isinstance(model.task, Regression):
        table.add_column("with", justify="right")
    table.add_column("share", justify="right")
    for m, vote in prediction.votes.items():
        cells = [m, "(absent)" if vote.probabilities is None else _said(vote.answer)]
        if not isinstance(model.task, Regression):
            cells.append("" if vote.probabilities is None else f"{max(vote.probabilities.values()):.3f}")
        table.add_row(*(Text(shown(cell)) for cell in (*cells, f"{vote.share:+.3f}")))
    Console().print(table)
    print(
        f"Shares are Shapley's, of the likelihood of the answer over knowing nothing: together {prediction.score:+.3f}."
    )


def _value(model: TrainedModel, modality: str, text: str) -> Any:
    """What was typed, as the modality takes it."""
    try:
        return typed(model.reader(modality), text)
    except ValueError as error:
        raise UsageError(f"--{modality} {error}") from error


def _said(answer: Answer) -> str:
    if isinstance(answer, tuple):
        return " | ".join(map(_said, answer)) or "(no label)"
    return f"{answer:.6g}" if isinstance(answer, float) else str(answer)


def _likely(prediction: Prediction, task: Task) -> str:
    values = prediction.probabilities or {}
    if isinstance(task, Regression):
        return ", ".join(f"{name} {value:.6g}" for name, value in values.items())
    best = sorted(values.items(), key=lambda pair: -pair[1])[:MOST]
    return ", ".join(f"{name} {value:.3f}" for name, value in best)
