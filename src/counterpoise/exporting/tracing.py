"""Records a graph for batches of any size, and says which part cannot be recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from counterpoise.exporting.graph import Graph, Named

if TYPE_CHECKING:
    from torch.export import ExportedProgram

BATCH = "batch"
"""Name of the one size that may change."""
CURE = (
    "It must not hang on a value (if x.sum() > 0, x[mask], mask.nonzero()) nor take the size of the batch "
    "for a number: write x.shape[0] or torch.ones_like(x), not len(x)."
)


def traced(graph: Graph, inputs: Named, present: Named) -> ExportedProgram:
    """The program that computes the graph.

    Args:
        graph: what to record.
        inputs: modality -> (at least 2, ...), an example.
        present: modality -> (at least 2,) bool.

    Raises:
        ValueError: a part of it cannot be recorded, naming which one.
    """
    try:
        return recorded(graph, inputs, present)
    except Exception as error:  # of the compiler, which has many
        raise ValueError(f"{_culprit(graph, inputs, present)} cannot be exported: {_reason(error)} {CURE}") from error


def recorded(module: nn.Module, inputs: Named, present: Named) -> ExportedProgram:
    """The program of a module that is called as a graph is."""
    rows = {m: {0: torch.export.Dim(BATCH, min=1)} for m in inputs}
    with quiet(), without_fast_path(), torch.no_grad():
        return torch.export.export(module, (inputs, present), dynamic_shapes=(rows, rows), strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """What PyTorch's exporter warns of is its own affair; whether the result is right is looked at afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def without_fast_path() -> Iterator[None]:
    """PyTorch's transformer layers have kernels for evaluation of which no other runtime knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Part(nn.Module):
    """A part of what a graph computes."""

    def __init__(self, graph: Graph, part: Callable[[Named, Named], Any]):
        super().__init__()
        self.graph, self.part = graph, part

    def forward(self, inputs: Named, present: Named) -> Any:
        return self.part(inputs, present)


def _culprit(graph: Graph, inputs: Named, present: Named) -> str:
    """The first part that cannot be recorded, in words."""
    parts: dict[str, Callable[[Named, Named], Any]] = {
        f"encoders[{m!r}] ({type(graph.model.encoders[m]).__name__})": lambda x, p, m=m: graph.feature(m, x[m], p[m])
        for m in graph.reads
    }
    parts[f"fusion {type(graph.model.fusion).__name__}"] = lambda x, p: graph.model.fuse(graph.encode(x, p), p)[:2]
    for name, part in parts.items():
        try:
            recorded(_Part(graph, part), inputs, present)
        except Exception:  # of the compiler, which has many
            return name
    return f"predict of method {type(graph.method).__name__}"


def _reason(error: Exception) -> str:
    """The first line of what PyTorch says, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:") + "."
