"""A page that takes one sample and shows the answer and who voted for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from counterpoise._extras import require
from counterpoise.data.readers import Image, ReadError, Waveform
from counterpoise.task import Regression
from counterpoise.trained.intake import typed
from counterpoise.trained.model import TrainedModel
from counterpoise.trained.votes import Answer, Prediction

if TYPE_CHECKING:
    from gradio import Blocks  # pyright: ignore[reportMissingImports]

HEADER = ("modality", "says", "how sure", "share")


def page(model: TrainedModel, *, title: str) -> Blocks:
    """The page, not shown yet.

    Args:
        model: what answers.
        title: of the page.

    Raises:
        ImportError: the extra ``serve`` is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    require("The page", "gradio")
    import gradio  # pyright: ignore[reportMissingImports]

    def answer(*values: Any) -> tuple[Any, list[list[str]]]:
        try:
            prediction = model.predict(sample_of(model, values), explain=True)
        except (ReadError, ValueError, TypeError) as error:
            raise gradio.Error(str(error), print_exception=False) from error
        return prediction.probabilities, votes(prediction)

    with gradio.Blocks(title=f"counterpoise: {title}") as blocks:
        gradio.Markdown(
            f"# {title}\n{model.trainer.method.label}, {', '.join(model.modalities)}. What is left out is absent."
        )
        with gradio.Row():
            with gradio.Column():
                inputs = [_input(m, model) for m in model.modalities]
                button = gradio.Button("Predict", variant="primary")
            with gradio.Column():
                numbers = isinstance(model.task, Regression)
                fused = gradio.JSON(label="Answer") if numbers else gradio.Label(label="Answer", num_top_classes=5)
                table = gradio.Dataframe(headers=list(HEADER), label="Who voted for it", interactive=False)
        button.click(answer, inputs, [fused, table], api_name="predict")
    return blocks


def _input(modality: str, model: TrainedModel) -> Any:
    """The part of the page that takes one modality."""
    import gradio  # pyright: ignore[reportMissingImports]

    reader = model.readers.get(modality)
    label = modality if reader is not None else f"{modality} (.npy)"  # of a model that was trained on tensors
    named: Any = {"label": label, "elem_id": f"input-{model.modalities.index(modality)}"}
    if isinstance(reader, Waveform):
        return gradio.Audio(type="filepath", **named)
    if isinstance(reader, Image):
        return gradio.Image(type="filepath", image_mode=None, **named)  # the file as it is, not encoded again
    if reader is not None and not reader.reads_files:
        return gradio.Textbox(**named)
    return gradio.File(type="filepath", **named)


def sample_of(model: TrainedModel, values: Sequence[Any]) -> dict[str, Any]:
    """What was given of each modality, without those that were left out; ValueError where nothing was given."""
    sample = {m: value for m, value in zip(model.modalities, values, strict=True) if value not in (None, "")}
    if not sample:
        raise ValueError("Give at least one modality.")
    for m, value in sample.items():
        try:
            sample[m] = typed(model.reader(m), value)
        except ValueError as error:
            raise ValueError(f"{m} {error}") from error
    return sample


def votes(prediction: Prediction) -> list[list[str]]:
    """A row for each modality, in the order of ``HEADER``."""
    rows = []
    for m, vote in prediction.votes.items():
        if vote.probabilities is None:
            rows.append([m, "absent", "", ""])
            continue
        sure = f"{vote.probabilities[vote.answer]:.3f}" if isinstance(vote.answer, str) else ""
        rows.append([m, _words(vote.answer), sure, f"{vote.share:+.3f}"])
    return rows


def _words(answer: Answer) -> str:
    """An answer in words."""
    if isinstance(answer, tuple):
        return ", ".join(map(_words, answer)) or "none"
    return f"{answer:.6g}" if isinstance(answer, float) else str(answer)
