"""The model card: what it predicts from what, and how well, from every subset of the modalities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from counterpoise._checks import shown
from counterpoise.portable import Description, Input
from counterpoise.task import Task, task_of

MOST = 50
"""Names of classes that a card lists."""


def card_of(description: Description, result: Mapping[str, Any] | None, label: str) -> str:
    """Markdown, with the header that the hub reads.

    Args:
        description: of the model.
        result: content of ``result.json``; None when nothing was measured.
        label: of the method.
    """
    task, data = task_of(description.task), (result or {}).get("data") or description.data
    lines = [
        "---", "library_name: counterpoise", "tags:", "- counterpoise", "- multimodal", f"- {task.kind}", "---", "",
        f"# {_plain(label)}" + (f" on {_plain(data)}" if data else ""), "",
        f"Predicts {_what(task)} from {', '.join(_plain(m) for m in description.modalities)}; what is absent may be "
        "left out. Trained with counterpoise, balanced multimodal learning.", "",
        "```python", "import counterpoise as cp", "",
        'model = cp.load("NAME OR FOLDER")', f"model.predict({{{_example(description)}}}, explain=True)", "```", "",
        "| modality | a value is |", "|---|---|",
        *(f"| {_plain(m)} | {_value(described)} |" for m, described in description.modalities.items()), "",
        *_teacher((result or {}).get("teacher")),
        "## Scores", "", *_scores(result),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _what(task: Task) -> str:
    names = ", ".join(_plain(name) for name in task.names[:MOST])
    more = f" and {task.width - MOST} more" if task.width > MOST else ""
    kind = {"single-label": "one class of", "multi-label": "any of the labels", "regression": "the numbers"}
    return f"{kind[task.kind]} {names}{more}"


def _example(description: Description) -> str:
    return ", ".join(f"{m!r}: ..." for m in description.modalities)


def _value(described: Input) -> str:
    if described.reader is None:
        shape = "?" if described.shape is None else tuple(described.shape)
        return f"an array of {described.dtype}, shape {shape}"
    name = str(described.reader["class_path"]).rsplit(".", 1)[-1]
    return f"what the reader {_plain(name)} takes; as a tensor, shape {tuple(described.shape or ())}"


def _teacher(kept: Mapping[str, Any] | None) -> Iterator[str]:
    """Whose student it is, and what both score and cost; nothing for a model that has no teacher."""
    if kept is None:
        return
    yield f"It is a student of {_plain(kept['teacher'])}, trained on what that says (`counterpoise distil`)."
    yield ""
    parts = list(kept["scores"]["student"])
    yield f"| {_plain(kept['metric'])} | {' | '.join(parts)} | parameters |"
    yield "|---" * (2 + len(parts)) + "|"
    for who, scores in kept["scores"].items():
        cells = [f"{scores[part]:.4f}" for part in parts]
        size = kept["cost"].get(who, {}).get("parameters")
        yield f"| {who} | {' | '.join(cells)} | {'' if size is None else f'{size:,}'} |"
    yield ""


def _scores(result: Mapping[str, Any] | None) -> Iterator[str]:
    """The table of all subsets; a sentence where there is none."""
    subsets = {name: scores for name, scores in ((result or {}).get("subsets") or {}).items() if scores}
    if not subsets:
        yield "Not measured: the run was not evaluated on a test split."
        return
    assert result is not None
    metrics = list(dict.fromkeys(metric for scores in subsets.values() for metric in scores))
    yield f"On the test split, with the weights of epoch {result.get('best_epoch')}, selected on validation."
    yield f"One run, seed {result.get('seed')}. Each row is of the same model, given these modalities only."
    yield ""
    yield f"| from | {' | '.join(_plain(metric) for metric in metrics)} |"
    yield "|---" * (1 + len(metrics)) + "|"
    for name, scores in subsets.items():
        cells = (f"{scores[m]:.4f}" if scores.get(m) is not None else "" for m in metrics)
        yield f"| {_plain(name)} | {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown and HTML take as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|!~&])", r"\\\1", " ".join(shown(str(text)).split()))
