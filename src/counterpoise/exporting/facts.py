"""What a file says of itself: what goes in and how it is made, what comes out and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterpoise._checks import per_modality, settings
from counterpoise.data import Reader
from counterpoise.exporting.graph import Graph, Named, kinds, mask_name
from counterpoise.method import Method
from counterpoise.types import FUSED

KEY = "counterpoise"
"""Under which a file holds its facts, as JSON."""
FORMAT = 1
"""Of the facts."""


def described(graph: Graph, method: Method, inputs: Named, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Plain values.

    Args:
        graph: what is exported.
        method: by which it was trained.
        inputs: modality -> (n, ...), an example.
        readers: modality -> what makes a sample of a file or a text, for those that have one.
    """
    model = graph.model
    per_modality("readers", readers, model.modalities)
    return {
        "format": FORMAT,
        "task": model.task.to_dict(),
        "method": method.label,
        "fusion": type(model.fusion).__name__,
        "unimodal_by": method.unimodal_by(model),
        "modalities": {
            m: {
                "input": m,
                "mask": mask_name(m),
                "shape": list(inputs[m].shape[1:]),
                "dtype": str(inputs[m].dtype).removeprefix("torch."),
                "reader": _plain(readers[m]) if m in readers else None,
                "outputs": {kind: f"{m}.{kind}" for kind in kinds(model.task)},
            }
            for m in graph.reads
        },
        "outputs": {kind: f"{FUSED}.{kind}" for kind in kinds(model.task)},
    }


def _plain(reader: Reader) -> dict[str, Any]:
    """The class and its options, as in a configuration, and what it learnt from data."""
    path = f"{type(reader).__module__}.{type(reader).__qualname__}"
    learnt = {**reader.learnt(), **(reader.fitted or {})}
    return {"class_path": path, "init_args": settings(reader), "learnt": learnt}
