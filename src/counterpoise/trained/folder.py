"""A trained model as a folder for others: weights without pickle, a configuration of plain data, a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from counterpoise._files import sha256, write_text, writing
from counterpoise.engine import CheckpointError
from counterpoise.portable import Description

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PARTS = ("model", "method", "loss")
"""What has tensors, and begins their names."""


def write_folder(
    folder: Path,
    description: Description,
    state: Mapping[str, Mapping[str, Any]],
    *,
    epoch: int | None,
    result: Mapping[str, Any] | None,
    card: str,
) -> None:
    """Write the three files; the configuration comes last, so that what is there is whole.

    Args:
        folder: made when missing.
        description: of the model.
        state: part -> its tensors.
        epoch: that the weights are of.
        result: what was measured of it; None when nothing was.
        card: the text of ``README.md``.

    Raises:
        ValueError: a part holds something else than tensors.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for part, values in state.items():
        for name, value in values.items():
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise ValueError(f"{name!r} of the {part} is no tensor but {kind}; keep it in a buffer.")
            tensors[f"{part}.{name}"] = value.detach().cpu().clone().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder / WEIGHTS, "wb") as file:
        file.write(save(tensors))
    write_text(folder / CARD, card)
    config = {
        "library_name": "counterpoise",
        "model_type": "counterpoise",
        **description.to_dict(),
        "epoch": epoch,
        "result": result,
        "sha256": sha256(folder / WEIGHTS),
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n")


def read_state(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Part -> name -> tensor, and the epoch, as a checkpoint of a run has them.

    Args:
        folder: of the files.
        values: of ``config.json``.

    Raises:
        CheckpointError: the weights are missing or are not those that the configuration was written with.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}: the weights are missing. Copy or download the whole folder.")
    if sha256(file) != values.get("sha256"):
        raise CheckpointError(
            f"{file} is damaged, or not the file that {CONFIG} was written with: its SHA-256 differs. Copy or download "
            "it again."
        )
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is no readable file of weights: {error}.") from error
    state: dict[str, Any] = {part: {} for part in PARTS}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        state[part][inner] = tensor
    return {**state, "epoch": values.get("epoch")}
